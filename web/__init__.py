"""The web pages: one application of which each section is switched on by a setting.

- `application` puts it together, `python -m web` serves it;
- `edge` answers what is wrong with a request before any page sees it, and sets the headers of all answers;
- `layout` renders pages, `static_files` serves what `web/frontend` is built into;
- `dashboard` is the section with distributions and evolutions, and its API;
- `analyses` is the section where analysts log in, submit, schedule, watch and share map-reduce jobs;
- `operations` is the section that shows what is wrong, since when, and what to do, for who is logged in;
- `start` is the page at which people begin, `documents` and `markdown` show docs/*.md.

The pages' JavaScript is in `web/frontend`; `build_tools/install.sh` builds it into `web/static`.
"""
