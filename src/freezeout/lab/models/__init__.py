r"""The networks of the paper, and their relatives, as ordinary modules.

Nothing here knows of freezing. All families take images of any height and width from one pixel up
and any number of channels, and end in global average pooling and a classifier that returns logits:

* :class:`DenseNet` (DenseNet-BC), :class:`WideResNet` and :class:`VGG` with BatchNorm, as in the
  paper, and :class:`ResNet`, the CIFAR networks of He et al.
* :func:`build` makes any of them from a name such as ``"densenet-76-12"``; :func:`available` lists
  the forms a name can take. A custom network has the name ``"module:function"``.

**Structure.** The module tree is in execution order and flat. DenseNet, WideResNet and ResNet have
``stem``, ``blocks`` (one :class:`torch.nn.Sequential`; its children are named ``block1_layer1``,
``block1_layer2``, …, with ``transition1`` and ``transition2`` in their places in a DenseNet),
``norm`` (not in a ResNet) and ``classifier``. VGG has ``features`` (convolutions, norms, ReLUs and
pools in one flat sequence) and ``classifier``. Every parameter sits in one of these.

**Initialisation.** As in the paper's experiments: convolutions He normal with fan-out, so with
standard deviation $\sqrt{2 / (k^2 c_{out})}$; BatchNorm weight 1 and bias 0; linear bias 0. The
paper is silent on linear weights; they are uniform in $\pm 1/\sqrt{c_{in}}$, PyTorch's own default.
Weights depend on ``torch.manual_seed`` and on nothing else.

**Small images.** Strided convolutions (ResNet, WideResNet) halve and round up, so one pixel stays
one pixel. Pools (DenseNet, VGG) halve and round down; along a dimension that has already come down
to one pixel they do not pool. Which ones is settled by ``image_size`` when the network is built:
larger images than that still run, smaller ones may not.

BatchNorm in training mode needs more than one value per channel, so a training batch must hold at
least two images wherever the image comes down to one pixel (and always in the head of a VGG).

Reference:
    Brock et al., "FreezeOut", 2017 (arXiv:1706.04983).
"""

from freezeout.lab.models.custom import CustomModel, load_custom, move_custom
from freezeout.lab.models.densenet import DenseNet
from freezeout.lab.models.registry import available, build, check_name
from freezeout.lab.models.resnet import ResNet
from freezeout.lab.models.vgg import VGG
from freezeout.lab.models.wide_resnet import WideResNet

__all__ = [
    "VGG",
    "CustomModel",
    "DenseNet",
    "ResNet",
    "WideResNet",
    "available",
    "build",
    "check_name",
    "load_custom",
    "move_custom",
]
