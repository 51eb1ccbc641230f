"""Start a job of the packaged core: `spark-submit --py-files core.zip launch.py jobs.count_pings …`.

EMR starts a file and our jobs are modules of the core, so this file is what EMR starts.
"""

import runpy
import sys


def main() -> None:
    """Run the module that the first argument names, as `python -m` would, with the other arguments."""
    if len(sys.argv) < 2:
        sys.exit("usage: launch.py MODULE [ARGUMENT]...; for example launch.py jobs.count_pings --help")
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
