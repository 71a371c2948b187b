"""Checkpoints of the published networks, made by code: the same on all machines."""

from audiojax import catalog, models, pretrained
from scripts import convert_weights, make_goldens


def made(name, num_classes):
    """A network, variables without values, and published arrays that fit them."""
    network = models.create(name, num_classes, **catalog.RECORDS[name].options)
    variables = convert_weights.empty(network)
    published = pretrained.to_published(variables)
    shapes = {path: array.shape for path, array in published.items()}
    return network, variables, make_goldens.checkpoint(shapes)
