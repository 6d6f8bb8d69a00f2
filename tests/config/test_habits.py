"""Words from other tools: each is answered with igo's word; those of calls are in tests/plans."""

import re

import pytest
from conftest import ROOT, configure
from hydra.errors import HydraException

from igo.config.hints import explained
from igo.ground.errors import UserError

SETTINGS = {  # igo's word, and what people type for it.
    "learning_rate": "lr optimizer.lr optimizer.learning_rate model.learning_rate",
    "batch_size": "bs batch train_batch_size per_device_train_batch_size dataset.batch_size",
    "max_batch_size": "b_max max_bs",
    "epochs": "epoch n_epochs max_epochs trainer.max_epochs total_steps steps max_iters T_max",
    "seed": "random_seed manual_seed",
    "data_dir": "data_root data_path",
    "runs_dir": "output_dir save_dir logdir",
    "dataset.root": "root",
    "dataset.workers": "workers num_workers",
    "dataset.validation": "val_split",
    "model": "arch net",
    "optimizer": "opt optim",
    "optimizer.weight_decay": "wd weight_decay",
    "optimizer.momentum": "momentum",
    "schedule": "scheduler lr_scheduler",
    "schedule.floor": "min_lr eta_min schedule.min_lr",
    "schedule.warmup": "warmup warmup_steps warmup_epochs schedule.warmup_ratio",
    "engine.device": "gpu device trainer.devices",
    "engine.precision": "amp dtype precision",
    "engine.micro_batch_size": "gradient_accumulation_steps accumulate_grad_batches",
    "tracking": "wandb",
    "tracking.project": "wandb_project",
    "tracking.name": "run_name",
}
OPTIONS = {
    "optimizer=adam": "Did you mean 'adamw'",
    "optimizer=lion": r"optimizer\._target_=timm\.optim\.Lion",
    "schedule=gradated": "Did you mean 'graduated'",
    "dataset=CIFAR100": "Did you mean 'cifar100'",
    "model=resnet50": "model=timm model.name=resnet50",
    "dataset.augment=true": "type dataset.augment.crop=VALUE or dataset.augment.flip=VALUE or",
    "schedule.kappa=0.5": "belongs to .*schedule=step",
    "method=3": "no method: .*schedule=method3",
    "optimizer.nesterov=true": r"optimizer\._target_=torch\.optim\.SGD .*optimizer\.nesterov=true",
    "schedule.step_size=30": r"schedule\.stages is their number",
    "hydra.launcher.gpus=2": r"hydra\.launcher\.gpus_per_node",
    "hydra.launcher.timeout_min=60": r"hydra\.launcher\.time$",
    "output=tables": "no output: igo report output=FOLDER writes its tables as files",
    "target=0.9": "no target: igo report target=ACCURACY compares",
    "resume=true": "the same command continues an unfinished run",
    "overwrite=true": r"'overwrite'\. \(see --help\)",  # fresh=true would delete the run.
    "frsh=true": r"'frsh'\. \(see --help\)",
}
COMMANDS = {
    f"{word}=1": f"there is no setting '{word}'. Did you mean '{name}'"
    for name, words in SETTINGS.items()
    for word in words.split()
} | OPTIONS


@pytest.mark.parametrize("words", COMMANDS)
def test_a_command_is_answered_with_the_word_of_igo(words: str) -> None:
    with pytest.raises((HydraException, UserError)) as caught:
        configure(*words.split())
    error = caught.value
    if isinstance(error, HydraException):
        error = explained(error, ROOT / "conf" / "config.yaml")
    assert re.search(COMMANDS[words], str(error))
