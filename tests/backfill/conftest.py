"""The files that Hadoop wrote, once for all tests of reading."""

import pytest

from lake_testing.hadoop_files import HadoopFiles, write_hadoop_files


@pytest.fixture(scope="session")
def hadoop_files(tmp_path_factory: pytest.TempPathFactory) -> HadoopFiles:
    """Files in every form of the archive."""
    return write_hadoop_files(tmp_path_factory.mktemp("hadoop-files"))
