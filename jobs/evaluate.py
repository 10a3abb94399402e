"""What `ray job submit` starts: `python jobs/evaluate.py --config jobs/configs/paper.yaml`."""

import sys

from riemannopt_dist.commands import app

if __name__ == "__main__":
    app(["evaluate", *sys.argv[1:]])
