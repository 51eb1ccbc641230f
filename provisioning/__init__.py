"""The whole lake on AWS: `python -m provisioning plan | deploy | status | destroy | cost`; docs/deploying.md.

- `templates`: the stacks in `cloudformation/`, their order, and what each asks for and says;
- `parameters`: the values of an environment, checked before AWS is asked for anything;
- `changes`: what a change set does to what is there, and which of it is refused unless told by name;
- `stacks`: the calls to CloudFormation;
- `explain`: what a failure means, and the next step;
- `rolling`: which ingest node is replaced next;
- `package`: the code that machines start from, under its hash;
- `uploads`: all that a lake runs, made and uploaded where it is missing;
- `lake`: the settings of a deployed lake, and its tables;
- `first_ping`: a ping that is posted to the deployed lake and followed to its row;
- `deployment`: the steps of a deployment in their order, each of which first looks at what is there;
- `removal`: what goes and what stays when a lake is turned off;
- `display`: tables and progress on the screen;
- `cost`: what a lake costs a month, by part. See docs/cost.md.

It is an operator's program: the machines of a lake do not run it.
"""
