"""Where the files are that the project reads besides its code: sql/ and schemas/.

In a clone they lie beside the packages. A packaged core (`deploy.spark_package`) is imported from a zip, in
which nothing can be opened as a file: there they are unpacked first.
"""

import hashlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import Final
from zipfile import ZipFile
from zipimport import zipimporter

from telemetry_lake.failures import ConfigurationError

DATA_FOLDERS: Final = ("schemas", "sql")
_PRIVATE: Final = 0o40700
"""The mode of a folder that only its owner may read and write."""


def project_root() -> Path:
    """Return the folder that holds sql/ and schemas/: the clone, or where they were unpacked.

    They are unpacked once for each machine, user and package. Processes that start at the same time see a
    whole folder or none. Raises ConfigurationError when the place belongs to another user.
    """
    loader = globals()["__loader__"]
    if not isinstance(loader, zipimporter):
        return Path(__file__).resolve().parent.parent
    private = Path(tempfile.gettempdir()) / f"telemetry-lake-{os.getuid()}"
    private.mkdir(mode=0o700, exist_ok=True)
    found = private.lstat()
    if found.st_uid != os.getuid() or found.st_mode != _PRIVATE:
        raise ConfigurationError(
            f"{private} is not a folder of this user's alone: remove it, or set TMPDIR to another place"
        )
    archive = Path(loader.archive)
    root = private / hashlib.sha256(archive.read_bytes()).hexdigest()
    if not root.is_dir():
        unpacked = Path(tempfile.mkdtemp(dir=private))
        with ZipFile(archive) as package:
            package.extractall(
                unpacked, [name for name in package.namelist() if name.partition("/")[0] in DATA_FOLDERS]
            )
        try:
            unpacked.rename(root)
        except OSError:  # another process was quicker
            shutil.rmtree(unpacked)
    return root


PROJECT_ROOT: Final = project_root()
