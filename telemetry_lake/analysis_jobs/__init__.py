"""The analysis service: jobs of analysts, their schedules and their runs, for pages, command and DAGs.

A *job* is what an analyst saves: a script, what it reads and when it runs. A *run* is one execution of it,
and its *result* is what came out. All state is documents in the lake bucket (`documents`), written on
conditions: the service may be killed at any moment, and a process of it knows nothing that another does not.

- `people`: who a person is, and what they may see and do; their quotas;
- `schedule`: when a job is due, and which dates a run reads;
- `store`: the job documents, and the code of jobs;
- `audit`: who did what;
- `airflow_api`: the requests to Airflow, which executes the runs;
- `runs`: start, cancel, follow and settle runs; which are late;
- `prepare`, `run_log`: what the tasks of a run do before and after the job, and with what it prints;
- `old_schedules`: analyses that the form repeated before there were jobs;
- `code`: what a person gives as the code of a job;
- `sandbox`: where that code runs, and where a script is tried before it is submitted;
- `notify`: mails and web hooks at the end of a run.

Neither Airflow nor Spark is imported here, and the tables only by what runs scripts or prepares that.
docs/analysis_service.md describes the documents.
"""
