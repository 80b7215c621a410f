"""Networks of timm and torchvision, at low resolution."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import nn

from tests.layers.real.network import Network, images

__all__ = ["NETWORKS"]

# Name, size of the images, settings that make it smaller.
TIMM: list[tuple[str, int, dict[str, Any]]] = [
    ("resnet18", 64, {}),
    ("resnet26d", 64, {}),
    ("skresnet18", 64, {}),
    ("resnest14d", 64, {}),
    ("res2net50_14w_8s", 64, {}),
    ("resnetv2_18", 64, {}),
    ("legacy_seresnet18", 64, {}),
    ("seresnext26d_32x4d", 64, {}),
    ("densenet121", 64, {}),
    ("densenetblur121d", 64, {}),
    ("dla34", 64, {}),
    ("dpn48b", 64, {}),
    ("ese_vovnet19b_dw", 64, {}),
    ("regnetx_002", 64, {}),
    ("regnety_002", 64, {}),
    ("test_byobnet", 64, {}),
    ("repvgg_a0", 64, {}),
    ("gernet_s", 64, {}),
    ("efficientnet_b0", 64, {}),
    ("mobilenetv2_050", 64, {}),
    ("mobilenetv3_small_050", 64, {}),
    ("mobilenetv4_conv_small_050", 64, {}),
    ("mnasnet_small", 64, {}),
    ("mixnet_s", 64, {}),
    ("tinynet_e", 64, {}),
    ("lcnet_050", 64, {}),
    ("lcnetv2_small", 64, {}),
    ("ghostnet_050", 64, {}),
    ("ghostnetv3_050", 64, {}),
    ("repghostnet_050", 64, {}),
    ("rexnet_100", 64, {}),
    ("hardcorenas_a", 64, {}),
    ("fbnetc_100", 64, {}),
    ("cspresnet50", 64, {}),
    ("cs3darknet_s", 64, {}),
    ("cspnext_tiny", 64, {}),
    ("test_nfnet", 64, {}),
    ("hgnetv2_b0", 64, {}),
    ("hrnet_w18_small", 64, {}),
    ("inception_v3", 96, {}),
    ("inception_v4", 96, {}),
    ("inception_resnet_v2", 96, {}),
    ("xception41", 64, {}),
    ("selecsls42", 64, {}),
    ("resnetblur18", 64, {}),
    ("convnext_atto", 64, {}),
    ("test_convnext", 64, {}),
    ("inception_next_atto", 64, {}),
    ("fasternet_t0", 64, {}),
    ("starnet_s050", 64, {}),
    ("repvit_m0_9", 64, {}),
    ("shvit_s1", 64, {}),
    ("rdnet_tiny", 64, {}),
    ("test_vit", 160, {}),
    ("test_vit3", 160, {}),
    ("vit_tiny_patch16_224", 224, {}),
    ("deit_tiny_distilled_patch16_224", 224, {}),
    ("beit_base_patch16_224", 224, {"depth": 3, "embed_dim": 48, "num_heads": 3}),
    ("eva02_tiny_patch14_224", 224, {"depth": 3}),
    ("cait_xxs24_224", 224, {"depth": 4}),
    ("xcit_nano_12_p16_224", 224, {"depth": 4}),
    ("convit_tiny", 224, {"depth": 4, "local_up_to_layer": 2}),
    ("crossvit_tiny_240", 240, {}),
    ("pit_ti_224", 224, {}),
    ("pit_ti_distilled_224", 224, {}),
    ("levit_128s", 224, {}),
    ("tnt_s_patch16_224", 224, {"depth": 2}),
    ("swin_tiny_patch4_window7_224", 224, {"embed_dim": 24, "depths": (2, 2, 2, 2)}),
    ("swinv2_tiny_window8_256", 256, {"embed_dim": 24, "depths": (2, 2, 2, 2)}),
    ("swinv2_cr_tiny_224", 224, {"embed_dim": 24, "depths": (2, 2, 2, 2)}),
    ("twins_svt_small", 224, {}),
    ("pvt_v2_b0", 64, {}),
    ("coatnet_nano_rw_224", 224, {}),
    ("davit_tiny", 64, {}),
    ("edgenext_xx_small", 64, {}),
    ("efficientformer_l1", 224, {}),
    ("efficientformerv2_s0", 224, {}),
    ("efficientvit_b0", 64, {}),
    ("efficientvit_m0", 224, {}),
    ("fastvit_t8", 64, {}),
    ("hiera_tiny_224", 224, {}),
    ("mambaout_femto", 64, {}),
    ("mobilevit_xxs", 64, {}),
    ("mobilevitv2_050", 64, {}),
    ("poolformer_s12", 64, {}),
    ("sequencer2d_s", 224, {"layers": (1, 1, 2, 1)}),
    ("swiftformer_xs", 64, {}),
    ("tiny_vit_5m_224", 224, {}),
    ("visformer_tiny", 224, {}),
    ("vit_tiny_r_s16_p8_224", 224, {}),
    ("botnet26t_256", 256, {}),
    ("nextvit_small", 64, {}),
    ("naflexvit_base_patch16_gap", 224, {"embed_dim": 48, "depth": 3, "num_heads": 3}),
    ("efficientvim_m1", 224, {}),
    ("mixer_s32_224", 224, {}),
    ("gmlp_ti16_224", 224, {}),
    ("resmlp_12_224", 224, {}),
    ("focalnet_tiny_srf", 64, {}),
    ("caformer_s18", 64, {}),
    ("coat_lite_tiny", 224, {}),
    ("test_maxvit", 160, {}),
    ("gcvit_xxtiny", 224, {}),
    ("mvitv2_tiny", 64, {}),
]
TORCHVISION: list[tuple[str, int, dict[str, Any]]] = [
    ("alexnet", 96, {}),
    ("resnet18", 64, {}),
    ("densenet121", 64, {}),
    ("googlenet", 96, {"init_weights": False}),
    ("mobilenet_v2", 64, {}),
    ("mobilenet_v3_small", 64, {}),
    ("efficientnet_b0", 64, {}),
    ("regnet_y_400mf", 64, {}),
    ("shufflenet_v2_x0_5", 64, {}),
    ("squeezenet1_1", 64, {}),
    ("mnasnet0_5", 64, {}),
    ("convnext_tiny", 32, {}),
    ("swin_t", 64, {}),
    ("swin_v2_t", 64, {}),
    ("lraspp_mobilenet_v3_large", 64, {"weights_backbone": None}),
    ("fcn_resnet50", 64, {"weights_backbone": None, "aux_loss": True}),
    ("deeplabv3_mobilenet_v3_large", 64, {"weights_backbone": None, "aux_loss": True}),
]


def _timm(name: str, settings: dict[str, Any]) -> nn.Module:
    import timm

    model: nn.Module = timm.create_model(name, num_classes=10, **settings)
    return model


def _torchvision(name: str, settings: dict[str, Any]) -> nn.Module:
    from torchvision.models import get_model

    model: nn.Module = get_model(name, weights=None, num_classes=10, **settings)
    return model


NETWORKS = [
    Network(f"timm/{name}", partial(_timm, name, settings), partial(images, size))
    for name, size, settings in TIMM
] + [
    Network(f"torchvision/{name}", partial(_torchvision, name, settings), partial(images, size))
    for name, size, settings in TORCHVISION
]
