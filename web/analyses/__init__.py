"""The analysis service: analysts log in, and submit, schedule, watch and share map-reduce jobs.

- `users`, `open_id`: who may log in, from a file or by OpenID Connect;
- `access`: sessions of browsers and tokens of programs, kept in S3;
- `visitors`: whom a request is from, and whether it may change something;
- `log_in`: the pages to log in and out, and to make tokens.
"""
