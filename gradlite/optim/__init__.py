"""Optimizers, learning rate schedules (`lr_scheduler`) and weight averaging (`swa_utils`)."""

from gradlite.optim import lr_scheduler, swa_utils
from gradlite.optim.adadelta import Adadelta
from gradlite.optim.adafactor import Adafactor
from gradlite.optim.adagrad import Adagrad
from gradlite.optim.adam import Adam, AdamW
from gradlite.optim.adamax import Adamax
from gradlite.optim.asgd import ASGD
from gradlite.optim.lbfgs import LBFGS
from gradlite.optim.lion import Lion
from gradlite.optim.muon import Muon
from gradlite.optim.nadam import NAdam
from gradlite.optim.optimizer import Optimizer
from gradlite.optim.radam import RAdam
from gradlite.optim.rmsprop import RMSprop
from gradlite.optim.rprop import Rprop
from gradlite.optim.sgd import SGD

__all__ = [
    "ASGD",
    "LBFGS",
    "Lion",
    "Adadelta",
    "Adafactor",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "Muon",
    "NAdam",
    "Optimizer",
    "RAdam",
    "RMSprop",
    "Rprop",
    "SGD",
    "lr_scheduler",
    "swa_utils",
]
