"""Reading the historic archive: storages (HDFS, S3, local) and file formats, in bounded pieces."""
