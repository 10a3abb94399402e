"""How a whole run can end before its end. Images given up on, with their shards, are in `run.failure`."""


class StartError(RuntimeError):
    """Actors cannot be started: their constructors fail again and again, and none is alive."""


class Stopped(RuntimeError):
    """A storage does not answer, or the run was asked to stop. What is finished is stored, and the same
    command goes on from there."""


class Interrupted(Stopped):
    """The run was asked to stop, by a signal."""
