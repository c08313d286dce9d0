"""Networks with hand-written derivatives to second order, and their losses as objectives."""

from tinybilevel.layers.average_pool import AveragePool
from tinybilevel.layers.base import Layer
from tinybilevel.layers.batch_norm import BatchNorm
from tinybilevel.layers.conv2d import Conv2d
from tinybilevel.layers.dense import Dense
from tinybilevel.layers.features import FeatureMap
from tinybilevel.layers.flatten import Flatten
from tinybilevel.layers.max_pool import MaxPool
from tinybilevel.layers.network import Network
from tinybilevel.layers.network_loss import FeatureLoss
from tinybilevel.layers.relu import ReLU
from tinybilevel.layers.softplus import Softplus
from tinybilevel.layers.spatial_mean import SpatialMean
from tinybilevel.layers.tanh import Tanh

__all__ = [
    "AveragePool",
    "BatchNorm",
    "Conv2d",
    "Dense",
    "FeatureLoss",
    "FeatureMap",
    "Flatten",
    "Layer",
    "MaxPool",
    "Network",
    "ReLU",
    "Softplus",
    "SpatialMean",
    "Tanh",
]
