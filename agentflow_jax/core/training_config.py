"""TrainingConfig: the section `training`, the outer loop of a run."""

import dataclasses


@dataclasses.dataclass
class TrainingConfig:
  """The outer loop. One iteration = rollout, then optimizer steps."""

  iterations: int = 100
  # Updates that the weights of a rollout may be behind. 0: rollout and update
  # take turns. 1: the next rollout runs beside the update, on the weights from
  # before it, which costs a second copy of what is trained.
  max_staleness: int = 0
  evaluate_every: int = 0  # iterations; 0 = only before and after
  evaluate_first: bool = True
  checkpoint_every: int = 10
  keep_last: int = 2
  # Also keep the best checkpoint by held-out accuracy.
  keep_best: bool = True
  tensorboard: bool = True
  wandb_project: str = ""  # "" = off
  # Export the best (else last) weights to RUN_DIR/hf when done.
  export_hf: bool = True
  write_report: bool = True
