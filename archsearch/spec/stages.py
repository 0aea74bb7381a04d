"""Stage records by kind: what people, YAML files and searches touch. A family of networks is one record."""

from archsearch.spec.basic import AverageStage, ConvStage, HeadStage, PoolStage, RecurrentStage
from archsearch.spec.branches import DenseStage, InceptionStage, TransitionStage
from archsearch.spec.fields import Stage
from archsearch.spec.residual import InvertedStage, ResidualStage

STAGES: dict[str, type[Stage]] = {
    "conv": ConvStage,
    "pool": PoolStage,
    "residual": ResidualStage,
    "inverted": InvertedStage,
    "inception": InceptionStage,
    "dense": DenseStage,
    "transition": TransitionStage,
    "recurrent": RecurrentStage,
    "head": HeadStage,
    "average": AverageStage,
}
