"""TrainingConfig: the section `training`, the outer loop of a run."""

import dataclasses


@dataclasses.dataclass
class TrainingConfig:
  """The outer loop. One iteration = rollout, then optimizer steps."""

  iterations: int = 100  # Rollouts, each followed by its optimizer steps
  # Updates that the weights of a rollout may be behind. 0: rollout and update
  # take turns. 1: the next rollout runs beside the update, on the weights from
  # before it, which costs a second copy of what is trained.
  max_staleness: int = 0
  # Iterations between evaluations; 0 = only before and after.
  evaluate_every: int = 0
  evaluate_first: bool = True  # Evaluate the start model before training
  checkpoint_every: int = 10  # Iterations between checkpoints
  keep_last: int = 2  # Newest checkpoints that are kept
  # Also keep the best checkpoint by held-out accuracy.
  keep_best: bool = True
  tensorboard: bool = True  # Also write metrics to RUN_DIR/tensorboard
  # Weights & Biases project that gets the metrics, too; "" = off.
  wandb_project: str = ""
  # Export the best (else last) weights to RUN_DIR/hf when done.
  export_hf: bool = True
  write_report: bool = True  # Write RUN_DIR/report.html when done
