"""What a Driver consists of, made of what it was given."""

from __future__ import annotations

import dataclasses
import logging
import queue
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from alcore.config import DriverConfig, StrategiesConfig, TrainingConfig
from alcore.distributed.ranks import Ranks
from alcore.driver import checks
from alcore.driver.budget import Budget, FailureRate
from alcore.driver.checkpointing import Checkpointer
from alcore.driver.expected_costs import ExpectedCosts
from alcore.driver.interruption import Interruption
from alcore.driver.ledger import RequestLedger
from alcore.driver.pool_set import PoolSet
from alcore.driver.position import RunPosition
from alcore.driver.rank_scope import RankScope
from alcore.driver.request_queue import RequestQueue
from alcore.driver.run_log import WarnOnce, run_logger
from alcore.driver.strategy_set import StrategySet
from alcore.inference.learner import floating_type
from alcore.plugins.listeners import Listeners
from alcore.plugins.registry import installed
from alcore.pools.candidates import Candidates
from alcore.store.files import free_run_id
from alcore.training.class_balance import ClassBalance
from alcore.training.ddp import with_synchronized_normalization
from alcore.training.loader import LoaderFactory
from alcore.training.trainer import Trainer


@dataclasses.dataclass
class RunParts:
    """What a run consists of: the parts that a Driver was given, and what works with them.

    Parameters
    ----------
    config
        How the loop is run, with run id, seed and dtype of the run; another seed is set where the run is restored.
    asked_dtype, dtype
        The floating-point type that the learner is to be moved to, where the user gave one; that of batches.
    device
        Where learner and batches are.
    root
        Absolute path of the folder of all runs.
    position
        Where the run is.
    logger, warn_once
        The log of the run.
    learner, training_config
        What is trained, and how.
    pools, candidates
        The data, and what may be chosen from it.
    strategies, listeners
        What chooses, labels and measures; observers and stop criteria.
    trainer
        Runs the training loop; None where the run doesn't train.
    loaders, balance
        Make batches; weigh the classes.
    costs
        What labels are expected to cost.
    ledger, query_queue
        The state of each request, and where they are put.
    checkpointer
        Collects the state for checkpoints.
    scope, interruption
        The processes of the run, and whether it was asked to end.
    """

    config: DriverConfig
    asked_dtype: torch.dtype | None
    dtype: torch.dtype
    device: torch.device
    root: Path
    position: RunPosition
    logger: logging.Logger
    warn_once: WarnOnce
    learner: Any
    training_config: TrainingConfig | None
    pools: PoolSet
    candidates: Candidates
    strategies: StrategySet
    listeners: Listeners
    trainer: Trainer | None
    loaders: LoaderFactory
    balance: ClassBalance
    costs: ExpectedCosts
    ledger: RequestLedger
    query_queue: RequestQueue
    checkpointer: Checkpointer
    scope: RankScope
    interruption: Interruption

    @property
    def seed(self) -> int:
        """The seed of the run."""
        return int(self.config.seed or 0)

    @property
    def ranks(self) -> Ranks:
        """The processes that compute together; this one alone while it works by itself."""
        return self.scope.current


def make_parts(
    config: DriverConfig,
    learner: Any,
    strategies_config: StrategiesConfig,
    training_config: TrainingConfig | None,
    plugins: Sequence[Any],
) -> RunParts:
    """Return the parts of a run; the parameters are those of `alcore.Driver`, checked."""
    manager = config.dist_manager
    ranks = manager.join() if manager else Ranks()
    ranks.begin()
    run_id, seed = ranks.share(lambda: (config.run_id or free_run_id(Path(config.root_log_dir)), config.seed))
    dtype = config.asked_dtype or floating_type(learner)
    asked_dtype, config = config.asked_dtype, dataclasses.replace(config, run_id=run_id, seed=seed, dtype=dtype)
    device = torch.device(config.device or "cpu")
    logger = run_logger(run_id, logging.INFO if ranks.main else logging.ERROR)
    checks.warn_of_separate_runs(config, logger)
    warn_once = WarnOnce(logger)
    scope, interruption = RankScope(ranks), Interruption(ranks)
    listeners = Listeners(plugins, logger, criteria_only=not ranks.main, around=scope.by_itself)
    if manager is not None and manager.distributed and manager.sync_batch_norm:
        learner = with_synchronized_normalization(learner)

    pools = PoolSet(
        training_config.train_datapool if training_config else None,
        training_config.val_datapool if training_config else None,
        strategies_config.unlabeled_datapool,
    )
    loaders = LoaderFactory(
        batch_size=config.batch_size,
        drop_last=config.drop_last,
        collate_fn=config.collate_fn,
        workers=config.num_dataloader_workers,
        device=device,
        dtype=dtype,
        before_batch=interruption.safe_point,
    )
    balance = ClassBalance(
        pools.train,
        training_config.sampler if training_config else None,
        training_config.class_weights if training_config else None,
        warn_once,
    )
    trainer = None
    if training_config is not None and not config.skip_training:
        trainer = Trainer(
            training_config.train_loop_fn or installed().make("loop", "default"),
            learner,
            training_config,
            loaders,
            balance,
            device=device,
            dtype=dtype,
            fine_tuning_lr=config.fine_tuning_lr,
            reset_optim_states=config.reset_optim_states,
            model_checkpoint_frequency=config.model_checkpoint_frequency,
            ranks=ranks,
            manager=manager,
        )

    strategies = StrategySet(strategies_config)
    candidates, costs = Candidates(pools.choice), ExpectedCosts(strategies.label, pools.choice)
    transport = strategies_config.queue_cls() if ranks.main else queue.Queue()  # one for all ranks, perhaps
    ledger = RequestLedger(
        checks.check_queue(transport),
        Budget(config.budget),
        FailureRate(config.max_failure_rate),
        config.label_retries,
    )
    return RunParts(
        config=config,
        asked_dtype=asked_dtype,
        dtype=dtype,
        device=device,
        root=Path(config.root_log_dir).absolute(),  # now, since the working directory may change
        position=RunPosition(run_id),
        logger=logger,
        warn_once=warn_once,
        learner=learner,
        training_config=training_config,
        pools=pools,
        candidates=candidates,
        strategies=strategies,
        listeners=listeners,
        trainer=trainer,
        loaders=loaders,
        balance=balance,
        costs=costs,
        ledger=ledger,
        query_queue=RequestQueue(ledger, candidates, run_id, pools, costs, samples_per_step=config.samples_per_step),
        checkpointer=Checkpointer(learner, trainer, strategies.by_name, listeners.parts, ranks),
        scope=scope,
        interruption=interruption,
    )
