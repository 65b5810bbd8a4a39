"""Carries out the plan of a grid: cancels, creates and submits its experiments."""

from collections.abc import Sequence

from .. import environment
from ..watch.status import look
from . import submission
from .cancellation import cancel, is_member, wait_until_over
from .channels import channels
from .command import Command
from .faults import fault
from .inventory import Inventory
from .memory import next_raise
from .packs import jobs_of
from .plan import Action, Verb
from .request import JobCode, Outcome, Request, code_before, kept
from .sheep import Sheep, located
from .summary import stopped


def updates_code() -> bool:
    """Whether jobs that wait with older code are replaced by jobs with today's."""
    return environment.update_asked()


def runs_code_before(sheep: Sheep, action: Action) -> bool:
    """Whether the new job of an experiment runs the code of its last one, if that still exists."""
    job = sheep.experiment.job()
    is_held = job is not None and job.held and not updates_code()
    return action.verb == Verb.RESUME or is_held


class Applier:
    """Carries out the plans of one `dora grid`.

    It takes the code of new jobs once, so that all rounds of a search run the same.
    """

    def __init__(self, command: Command):
        self.command = command
        self._todays: dict[str, JobCode] = {}  # by the key `code` of the configuration

    def apply(self, inventory: Inventory, actions: Sequence[Action]) -> list[Outcome]:
        """Do what the plan says.

        Returns:
            What came of each submission. If the scheduler refuses one, the others are still made.

        Raises:
            UserError: an experiment cannot be created, or its job does not end. Nothing was
                submitted then.
        """
        sheep, args, wants = inventory.by_sig(), self.command.args, self.command.wants
        submits = [action for action in actions if action.verb.submits]
        restarts = [action for action in actions if action.anew]
        self._end_jobs(inventory, restarts)
        self._end_members(inventory, [action for action in submits if action.stops])
        self._cancel(inventory, [action for action in actions if action.verb == Verb.CANCEL])
        for action in submits:
            one = sheep[action.sig]
            with located(one):
                self.command.main.create(one.xp, anew=action.anew)
        for action in restarts:
            # A trial of a search that waits for a free slot is submitted later, but its results are
            # cleared now.
            if not action.verb.submits:
                sheep[action.sig].experiment.put_aside()
        fault("created")
        if not args.cancel:
            wants.take_over(watches=args.monitor and not args.patterns)
            for one in inventory.sheep:
                wants.add(one.xp.sig)
        outcomes = self._submit(inventory, submits)
        outcomes = submission.put_back(outcomes, {action.sig for action in restarts})
        for action in actions:
            if action.leaves:
                wants.drop(action.sig)
        return outcomes

    def refill(self, inventory: Inventory, held: Sequence[Sheep]) -> None:
        """Submit experiments that were held, as far as the scheduler has room by now.

        One is left out if a person has cancelled it since, or another command has submitted it.
        """
        requests = {}
        # Before the look: if another command submits in between, our intent fails.
        for one in held:
            inventory.seen[one.xp.sig] = one.experiment.job_number()
        statuses = look([one.experiment for one in held], inventory.executor)
        for one in held:
            if statuses[one.xp.sig].held:
                action = Action(one.xp.sig, Verb.NEW)
                requests[one.xp.sig] = self._request(inventory, one, action)
        submission.submit_all(
            jobs_of(inventory.herd.job_arrays, requests),
            inventory.executor,
            self.command.dora_dir,
            careful=True,
        )

    def resume(self, inventory: Inventory, interrupted: Sequence[Sheep]) -> list[Outcome]:
        """Submit interrupted experiments again, as a further `dora grid` would.

        One is left out if its status has changed. A person may have cancelled it since, or another
        command may have submitted it.

        Raises:
            UserError: one of them would mean something else today.
        """
        for one in interrupted:  # before the look, see inventory.update
            inventory.seen[one.xp.sig] = one.experiment.job_number()
        experiments = [one.experiment for one in interrupted]
        statuses = look(experiments, inventory.executor, force=True)
        actions = []
        for one in interrupted:
            before, one.status = one.status, statuses[one.xp.sig]
            if one.status != before:
                continue
            actions.append(Action(one.xp.sig, Verb.RESUME))
            inventory.raised[one.xp.sig] = next_raise(
                one.experiment.job(), one.status, one.xp.values
            )
            with located(one):
                self.command.main.create(one.xp)
        return self._submit(inventory, actions)

    def _end_jobs(self, inventory: Inventory, actions: Sequence[Action]) -> None:
        """End the jobs of the experiments that start from scratch.

        Raises:
            UserError: there is no code for the new jobs, or an old one does not end.
        """
        # The code comes first. If the configuration asks for a code that does not exist, no job is
        # cancelled.
        sheep = inventory.by_sig()
        for action in actions:
            self._todays_code(sheep[action.sig])
        self._cancel(inventory, stopped(actions))
        wait_until_over(inventory.experiments_of(actions), inventory.executor)
        for action in actions:
            inventory.seen[action.sig], inventory.job_ids[action.sig] = 0, []

    def _end_members(self, inventory: Inventory, actions: Sequence[Action]) -> None:
        """End those of these experiments that are members of packed jobs.

        A new job could not wait for a member, as the scheduler knows the whole job only.

        Raises:
            UserError: one does not end.
        """
        members = []
        for action in actions:
            if is_member(inventory.experiments[action.sig]):
                members.append(action)
                inventory.job_ids[action.sig] = []
        self._cancel(inventory, members)
        wait_until_over(inventory.experiments_of(members), inventory.executor)

    def _cancel(self, inventory: Inventory, actions: Sequence[Action]) -> None:
        cancel(inventory.experiments_of(actions), inventory.executor)

    def _submit(self, inventory: Inventory, actions: Sequence[Action]) -> list[Outcome]:
        """Submit each experiment as a job. Those of one `launcher.job_array()` are one array."""
        sheep, requests = inventory.by_sig(), {}
        for action in actions:
            requests[action.sig] = self._request(inventory, sheep[action.sig], action)
        outcomes = submission.submit_all(
            jobs_of(inventory.herd.job_arrays, requests), inventory.executor, self.command.dora_dir
        )
        inventory.executor.move()
        return outcomes

    def _request(self, inventory: Inventory, sheep: Sheep, action: Action) -> Request:
        root, code = self._code_of(sheep, action)
        sig, search = sheep.xp.sig, self.command.search
        stop = {}
        # A trial that the user retries runs to its last epoch.
        if search is not None and action.verb != Verb.RETRY:
            stop = search.stop_rule(sig)
        slurm, shape = inventory.asked_by(sheep)
        return Request(
            sheep.experiment,
            slurm,
            shape,
            raised=inventory.raised.get(sig, {}),
            packing=inventory.packing_of(sheep, root),
            seen=inventory.seen[sig],
            code_root=root,
            code=code,
            excluded=self.command.main.excluded(sheep.xp, slurm),
            grid=self.command.grid,
            replaces=inventory.job_ids[sig] if action.stops else [],
            stop=stop,
            tells=bool(channels(sheep.xp.values.get("notify"))),
        )

    def _code_of(self, sheep: Sheep, action: Action) -> JobCode:
        """The code of a new job.

        An interrupted or held experiment gets the code of its last job, if that still exists. All
        others get today's.
        """
        if runs_code_before(sheep, action):
            before = code_before(sheep.experiment, self.command.dora_dir)
            if before is not None:
                return before
        return kept(self.command.main, sheep.experiment, self._todays_code(sheep))

    def _todays_code(self, sheep: Sheep) -> JobCode:
        main = self.command.main
        key = str(sheep.xp.values.get("code"))
        with located(sheep):
            main.todays_code.refuse_other(sheep.xp.values)
            if key not in self._todays:
                self._todays[key] = main.code_for_jobs(sheep.xp)
        return self._todays[key]
