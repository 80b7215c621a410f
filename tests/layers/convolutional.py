"""Small convolutional networks, to be cut into layers."""

import torch
from torch import nn
from torch.nn import functional as F


class ConvNet(nn.Module):
    """Convolutions, norms and a classifier as attributes, in the order in which they run."""

    def __init__(self, *, affine: bool = True) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(4, affine=affine)
        self.conv2 = nn.Conv2d(4, 4, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(4, affine=affine)
        self.dropout = nn.Dropout()
        self.fc = nn.Linear(4, 2)

    def forward(self, x):
        x = self.dropout(F.relu(self.bn1(self.conv1(x))))
        x = self.dropout(F.relu(self.bn2(self.conv2(x))))
        return self.fc(x.mean((2, 3)))


class ConvsThenNorms(nn.Module):
    """Defined in another order than executed."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 2)
        self.conv2 = nn.Conv2d(4, 4, 3, padding=1)
        self.conv1 = nn.Conv2d(3, 4, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(4)
        self.bn2 = nn.BatchNorm2d(4)

    forward = ConvNet.forward

    def dropout(self, x):
        return x


class BasicBlock(nn.Module):
    def __init__(self, width_in: int, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = nn.Sequential()
        if width_in != width:
            self.shortcut = nn.Sequential(
                nn.Conv2d(width_in, width, 1, bias=False), nn.BatchNorm2d(width)
            )

    def forward(self, x):
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(y + self.shortcut(x))


class ResNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(4)
        self.relu = nn.ReLU()
        self.layer1 = nn.Sequential(BasicBlock(4, 4), BasicBlock(4, 4))
        self.layer2 = nn.Sequential(BasicBlock(4, 8), BasicBlock(8, 8))
        self.fc = nn.Linear(8, 2)

    def features(self, x):
        x = self.relu(self.bn1(self.conv1(x)))
        return self.layer2(self.layer1(x)).mean((2, 3))

    def forward(self, x):
        return self.fc(self.features(x))


class Backbone(ResNet):
    def __init__(self) -> None:
        super().__init__()
        del self.fc

    forward = ResNet.features


class BackboneAndHead(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = Backbone()
        self.head = nn.Linear(8, 2)

    def forward(self, x):
        return self.head(self.backbone(x))


class PlainBackboneAndHead(nn.Module):
    """A backbone without any list inside."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = ConvNet()
        self.head = nn.Linear(2, 2)

    def forward(self, x):
        return self.head(self.backbone(x))


class PreActBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(4)
        self.conv = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x):
        return x + self.conv(F.relu(self.bn(x)))


class PreActNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.blocks = nn.ModuleList([PreActBlock(), PreActBlock()])
        self.bn = nn.BatchNorm2d(4)
        self.fc = nn.Linear(4, 2)

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.fc(self.bn(x).mean((2, 3)))


class ConvNormAct(nn.Sequential):
    """As in torchvision."""

    def __init__(self, width_in: int, width: int) -> None:
        super().__init__(nn.Conv2d(width_in, width, 1), nn.BatchNorm2d(width), nn.ReLU())


class InvertedResidual(nn.Module):
    def __init__(self, width_in: int, width: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            ConvNormAct(width_in, 8), ConvNormAct(8, 8), nn.Conv2d(8, width, 1)
        )

    def forward(self, x):
        return self.conv(x)


class MobileNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            ConvNormAct(3, 4), InvertedResidual(4, 4), InvertedResidual(4, 8), ConvNormAct(8, 6)
        )
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(6, 2))

    def forward(self, x):
        return self.classifier(self.features(x).mean((2, 3)))


class DoubleConv(nn.Module):
    def __init__(self, width_in: int, width: int) -> None:
        super().__init__()
        self.convs = nn.Sequential(
            nn.Conv2d(width_in, width, 3, padding=1),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.BatchNorm2d(width),
        )

    def forward(self, x):
        return self.convs(x)


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down1 = DoubleConv(3, 4)
        self.down2 = DoubleConv(4, 8)
        self.up2 = nn.ConvTranspose2d(8, 4, 2, 2)
        self.up1 = DoubleConv(8, 4)
        self.out = nn.Conv2d(4, 1, 1)

    def forward(self, x):
        skip = self.down1(x)
        x = self.up2(self.down2(F.max_pool2d(skip, 2)))
        return self.out(self.up1(torch.cat([x, skip], 1)))
