"""The Spark jobs. Each is a program: `python jobs/<job>.py` from any folder, or `python -m jobs.<job>`.

Python puts the folder of a program that is started as a file on its path, and not the project's folder, from
which everything here is imported. So each program puts that there itself, before its first import of ours:
the line cannot be shared, because what shared it would have to be imported first.
"""
