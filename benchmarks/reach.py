r"""Scores small instances of the models of keras-hub, and writes a table of it.

keras-hub is no dependency of this project. From its folder, with the virtual
environment `.venv` that the project is installed in:

    python -m venv build/hub
    (pwd; ls -d .venv/lib/python3.*/site-packages | xargs realpath) \
        > $(ls -d build/hub/lib/python3.*/site-packages)/shared.pth
    build/hub/bin/pip install --no-deps keras-hub tensorflow-text tokenizers \
        kagglehub kagglesdk sentencepiece regex safetensors pyyaml
    build/hub/bin/python benchmarks/reach.py
    build/hub/bin/python benchmarks/reach.py --models=Bert,GPT2CausalLM

The models have random weights and two blocks or so; nothing is downloaded.
"""

import collections
import functools
import gc
import inspect
import os
import pathlib
import re
import textwrap
import time
import warnings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

from absl import app
from absl import flags

_MODELS = flags.DEFINE_list(
    "models", ["all"], "Names in the table, or what they begin with: Bert, T5."
)
_OUTPUT = flags.DEFINE_string(
    "output",
    str(pathlib.Path(__file__).with_suffix(".md")),
    "The table, in Markdown; it is written anew after every model.",
)

_COLUMNS = ("model", "kernels", "log10 R", "scored", "the others", "seconds")
_CLASSES = 3
_LONGEST_ERROR = 100
# What an input has where the model leaves a size open: 8 tokens, points ...
_OPEN = 8
# Shapes and values that have to fit others.
_EXAMPLES = {
    "Gemma3Backbone with images": {
        "images": (2, 16, 16, 3),
        "vision_indices": range(_OPEN),
    },
    "Moonshine": {
        "encoder_input_values": (1024, 1),
        "encoder_padding_mask": (1024,),
    },
    "SAM": {"masks": (1, 32, 32, 1)},
}
# Whichever of them keras-hub has for a backbone.
_TASKS = (
    "TextClassifier MaskedLM TextEmbedder CausalLM Seq2SeqLM AudioToText "
    "ProteinClassifier MaskedPLM ImageClassifier ImageSegmenter "
    "ObjectDetector DepthEstimator TextToImage ImageToImage Inpaint"
).split()

_HEADS = {
    "num_classes": _CLASSES,
    "num_features": 16,
    "pooling_hidden_dim": 16,
    "depth_estimation_type": "relative",
}

# Tables, several settings a line.
# fmt: off
_IMAGE = {"image_shape": (32, 32, 3)}
_BLOCKS = {"num_layers": 2, "hidden_dim": 16, "intermediate_dim": 32}
_TEXT = {"vocabulary_size": 20, "num_heads": 2, **_BLOCKS}
_GROUPED = {
    "vocabulary_size": 20, "num_query_heads": 4, "num_key_value_heads": 2,
    **_BLOCKS,
}
_GEMMA = {**_GROUPED, "head_dim": 4}
_EXPERTS = {**_GROUPED, "num_experts": 4}
_QWEN_EXPERTS = {**_EXPERTS, "moe_intermediate_dim": 16, "top_k": 2}
_SIDE = {
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 4,
    "layer_types": ["sliding_attention", "full_attention"], **_BLOCKS,
}
_T5_GEMMA = {
    **{f"encoder_{name}": value for name, value in _SIDE.items()},
    **{f"decoder_{name}": value for name, value in _SIDE.items()},
    "vocabulary_size": 20, "cross_attention_hidden_size": 16,
    "dropout_rate": 0.1, "rms_norm_eps": 1e-06, "query_pre_attn_scalar": 4.0,
    "attention_bias": False, "hidden_activation": "gelu_approximate",
    "sliding_window": 4,
}
_RESNET = {
    "input_conv_filters": [64], "input_conv_kernel_sizes": [7],
    "stackwise_num_filters": [64] * 4, "stackwise_num_blocks": [1, 2, 1, 1],
    "stackwise_num_strides": [1, 2, 2, 2], "block_type": "basic_block",
    "use_pre_activation": False,
}
_MIT = {
    "layerwise_depths": [1, 2], "num_layers": 2, "layerwise_num_heads": [1, 2],
    "layerwise_sr_ratios": [4, 2], "max_drop_path_rate": 0.1,
    "layerwise_patch_sizes": [7, 3], "layerwise_strides": [4, 2],
    "hidden_dims": [8, 16], **_IMAGE,
}
_HGNET = {
    "depths": [1, 1], "embedding_size": 8, "hidden_sizes": [16, 32],
    "stem_channels": [3, 8, 8], "hidden_act": "relu",
    "use_learnable_affine_block": True, "stackwise_stage_filters": [[8, 8, 16,
    1, 1, 3], [16, 8, 32, 1, 1, 3]], "apply_downsample": [False, True],
    "use_lightweight_conv_block": [False, True],
    "out_features": ["stage1", "stage2"], **_IMAGE,
}
_VIT = {"patch_size": 8, "num_heads": 2, **_BLOCKS, **_IMAGE}
_DINO = {**_VIT, "layer_scale_init_value": 1.0, "num_register_tokens": 2}
_SWIN = {"embed_dim": 8, "depths": (2, 2), "num_heads": (2, 4)}
_PAIR = {"num_layers": 2, "num_heads": 2, "hidden_dim": 16}
_CLIP_TEXT = {
    "vocabulary_size": 20, "embedding_dim": 16, "max_sequence_length": 8,
    "intermediate_dim": 32, **_PAIR,
}
_PROMPTS = {
    "hidden_size": 16, "image_embedding_size": (8, 8),
    "input_image_size": (128, 128), "mask_in_channels": 8,
}
_MASK_DECODER = {
    "num_layers": 2, "hidden_size": 16, "intermediate_dim": 32, "num_heads": 2,
    "embedding_dim": 16, "num_multimask_outputs": 3, "iou_head_depth": 2,
    "iou_head_hidden_dim": 8,
}
_MMDIT = {
    "mmdit_patch_size": 2, "mmdit_hidden_dim": 16, "mmdit_num_layers": 2,
    "mmdit_num_heads": 2, "mmdit_position_size": 16, "mmdit_qk_norm": None,
    "mmdit_dual_attention_indices": None, **_IMAGE,
}
_MMDIT_3_5 = {"mmdit_qk_norm": "rms_norm", "mmdit_dual_attention_indices": (0,)}
_VAE = {
    "encoder_num_filters": [32] * 4, "encoder_num_blocks": [1] * 4,
    "decoder_num_filters": [32] * 4, "decoder_num_blocks": [1] * 4, **_IMAGE,
}
_DFINE = {
    "decoder_in_channels": [16, 16], "encoder_hidden_dim": 16,
    "num_denoising": 0, "num_labels": _CLASSES, "hidden_dim": 16,
    "learn_initial_query": False, "num_queries": 10,
    "anchor_image_size": (32, 32), "feat_strides": [4, 8],
    "num_feature_levels": 2, "encoder_in_channels": [16, 32],
    "encode_proj_layers": [1], "num_attention_heads": 2, "encoder_ffn_dim": 32,
    "num_encoder_layers": 1, "hidden_expansion": 0.5, "depth_multiplier": 0.5,
    "eval_idx": -1, "num_decoder_layers": 2, "decoder_attention_heads": 2,
    "decoder_ffn_dim": 32, "decoder_n_points": [2, 2], "lqe_hidden_dim": 16,
    "num_lqe_layers": 2, "out_features": ["stage1", "stage2"], **_IMAGE,
}
_DEEPLAB = {
    "low_level_feature_key": "P2", "spatial_pyramid_pooling_key": "P5",
    "dilation_rates": [6, 12, 18], "upsampling_size": 8,
    "image_shape": (64, 64, 3),
}
_RETINANET = {
    "min_level": 3, "max_level": 7, "use_p5": True, "image_shape": (64, 64, 3),
}
_DINO_OF_DEPTH = {
    **_DINO, "num_layers": 4, "num_register_tokens": 0,
    "image_shape": (64, 64, 3),
}
_DEPTH = {
    "reassemble_factors": [4, 2, 1, 0.5], "neck_hidden_dims": [8, 8, 16, 16],
    "fusion_hidden_dim": 16, "head_hidden_dim": 8, "head_in_index": -1,
    "feature_keys": ["stage1", "stage2", "stage3", "stage4"],
}
_GEMMA_IMAGES = {
    "image_size": 16, "patch_size": 4, "pool_size": 2, "output_dim": 16,
    "intermediate_dim": 32, **_PAIR,
}
_PARSEQ = {
    "vocabulary_size": 20, "max_label_length": 8, "decoder_hidden_dim": 16,
    "num_decoder_layers": 1, "num_decoder_heads": 2, "decoder_mlp_dim": 32,
}
# The arguments of the backbones: that of Bert is the class BertBackbone,
# and after a space comes what tells two of one class apart.
_SETTINGS = {
    "Albert": {**_TEXT, "embedding_dim": 8},
    "Bart": _TEXT,
    "Bert": _TEXT,
    "Bloom": _TEXT,
    "CSPNet": {
        "stem_filters": 8, "stem_kernel_size": 3, "stem_strides": 1,
        "stackwise_depth": [1, 2], "stackwise_strides": 2,
        "stackwise_num_filters": [8, 16], "block_type": "dark_block",
        "stage_type": "csp", "down_growth": True, "bottle_ratio": (0.5, 1.0),
        "block_ratio": (1.0, 0.5), "expand_ratio": (2.0, 1.0), **_IMAGE,
    },
    "DINOV2": {**_DINO, "use_swiglu_ffn": True},
    "DINOV3": _DINO,
    "DebertaV3": _TEXT,
    "DeiT": _VIT,
    "DenseNet": {
        "stackwise_num_repeats": [2, 2], "compression_ratio": 0.5,
        "growth_rate": 4, **_IMAGE,
    },
    "DistilBert": _TEXT,
    "ESM": _TEXT,
    "EdRec": {
        "vocab_size": 20, "num_layers_enc": 2, "num_layers_dec": 2,
        "num_heads": 2, "hidden_dim": 16, "intermediate_dim": 32,
    },
    "EfficientNet": {
        "stackwise_kernel_sizes": [3, 3, 5], "stackwise_num_repeats": [1, 2, 1],
        "stackwise_input_filters": [8, 8, 16],
        "stackwise_output_filters": [8, 16, 16],
        "stackwise_expansion_ratios": [1, 4, 4],
        "stackwise_squeeze_and_excite_ratios": [0.0, 0.25, 0.25],
        "stackwise_strides": [1, 2, 2],
        "stackwise_block_types": ["fused", "unfused", "unfused"],
        "stackwise_force_input_filters": [0] * 3,
        "stackwise_nores_option": [False] * 3, "width_coefficient": 1.0,
        "depth_coefficient": 1.0, **_IMAGE,
    },
    "Electra": {
        "vocab_size": 20, "num_heads": 2, "embedding_dim": 8, **_BLOCKS,
    },
    "FNet": {"vocabulary_size": 20, **_BLOCKS},
    "Falcon": {"vocabulary_size": 20, "num_attention_heads": 2, **_BLOCKS},
    "Flux": {
        "input_channels": 16, "hidden_size": 32, "mlp_ratio": 2.0,
        "num_heads": 2, "depth": 1, "depth_single_blocks": 1,
        "axes_dim": [4, 6, 6], "theta": 10000, "use_bias": True,
        "guidance_embed": True, "image_shape": (16, 16), "text_shape": (8, 16),
        "image_ids_shape": (16, 3), "text_ids_shape": (8, 3), "y_shape": (16,),
    },
    "GPT2": _TEXT,
    "GPTNeoX": _TEXT,
    "Gemma": _GEMMA,
    "Gemma 2": {
        **_GEMMA, "use_post_ffw_norm": True, "use_post_attention_norm": True,
        "attention_logit_soft_cap": 50, "final_logit_soft_cap": 30,
        "use_sliding_window_attention": True, "sliding_window_size": 4,
    },
    "Gemma3": {**_GEMMA, "image_size": 16},
    "GptOss": {**_EXPERTS, "head_dim": 4, "sliding_window": 4},
    "HGNetV2": _HGNET,
    "Llama": _GROUPED,
    "Llama3": _GROUPED,
    "MiT": _MIT,
    "Mistral": _GROUPED,
    "Mixtral": _EXPERTS,
    "MobileNet": {
        "stackwise_expansion": [[8, 16], [32]], "stackwise_num_blocks": [2, 1],
        "stackwise_num_filters": [[8, 8], [16]],
        "stackwise_kernel_size": [[3, 3], [5]],
        "stackwise_num_strides": [[2, 1], [2]],
        "stackwise_se_ratio": [[None, None], [0.25]],
        "stackwise_activation": [["relu", "relu"], ["hard_swish"]],
        "stackwise_padding": [[1, 1], [2]], "output_num_filters": 32,
        "last_layer_filter": 32, "input_activation": "hard_swish",
        "output_activation": "hard_swish", "input_num_filters": 8,
        "depthwise_filters": 8, "depthwise_stride": 2,
        "depthwise_residual": False, "squeeze_and_excite": 0.5, **_IMAGE,
    },
    "Moonshine": {
        "vocabulary_size": 20, "filter_dim": 16, "encoder_num_layers": 2,
        "decoder_num_layers": 2, "hidden_dim": 16, "intermediate_dim": 32,
        "encoder_num_heads": 2, "decoder_num_heads": 2,
    },
    "OPT": _TEXT,
    "PaliGemma": {
        **_GEMMA, "image_size": 16, "vit_patch_size": 4, "vit_num_layers": 2,
        "vit_num_heads": 2, "vit_hidden_dim": 16, "vit_intermediate_dim": 32,
    },
    "Phi3": _GROUPED,
    "Qwen": _GROUPED,
    "Qwen3": {**_GROUPED, "head_dim": 4},
    "Qwen3Moe": {**_QWEN_EXPERTS, "head_dim": 4},
    "QwenMoe": {**_QWEN_EXPERTS, "shared_expert_intermediate_dim": 32},
    "RWKV7": {
        "vocabulary_size": 20, "hidden_size": 16, "num_layers": 2,
        "head_size": 4, "intermediate_dim": 32, "gate_lora": 8, "mv_lora": 8,
        "aaa_lora": 8, "decay_lora": 8,
    },
    "ResNet": {**_RESNET, **_IMAGE},
    "ResNet v2": {
        **_RESNET, "block_type": "bottleneck_block", "use_pre_activation": True,
        **_IMAGE,
    },
    "ResNet vd": {
        **_RESNET, "input_conv_filters": [16, 16, 64],
        "input_conv_kernel_sizes": [3, 3, 3],
        "block_type": "bottleneck_block_vd", **_IMAGE,
    },
    "Roberta": _TEXT,
    "RoformerV2": {**_TEXT, "head_size": 8},
    "SmolLM3": {
        "vocabulary_size": 20, "num_attention_heads": 4,
        "num_key_value_heads": 2, "attention_bias": False,
        "attention_dropout": 0.0, "rope_layer_enabled_list": [True, False],
        "layer_types": ["attention", "attention"], "mlp_bias": False,
        "layer_norm_epsilon": 1e-05, "max_position_embeddings": 128,
        "rope_theta": 10000.0, "partial_rotary_factor": 1.0, **_BLOCKS,
    },
    "SwinTransformer": {"window_size": 4, **_SWIN, **_IMAGE},
    "T5": _TEXT,
    "T5Gemma": _T5_GEMMA,
    "T5Gemma2": {**_T5_GEMMA, "use_query_key_norm": True},
    "VGG": {
        "stackwise_num_repeats": [1, 2], "stackwise_num_filters": [8, 16],
        **_IMAGE,
    },
    "ViT": {
        "patch_size": 8, "num_layers": 2, "num_heads": 2, "hidden_dim": 16,
        "mlp_dim": 32, **_IMAGE,
    },
    "ViTDet": {
        "hidden_size": 16, "num_layers": 2, "intermediate_dim": 32,
        "num_heads": 2, "global_attention_layer_indices": [1], "patch_size": 16,
        "num_output_channels": 16, "window_size": 2,
        "image_shape": (128, 128, 3),
    },
    "VideoPrism": {
        "num_frames": 2, "patch_size": 8, "hidden_dim": 16,
        "intermediate_dim": 32, "num_heads": 2, "num_spatial_layers": 1,
        "num_temporal_layers": 1, "num_auxiliary_layers": 1,
        "vocabulary_size": 20, "num_text_layers": 1, **_IMAGE,
    },
    "Whisper": {**_TEXT, "max_encoder_sequence_length": 8},
    "XLMRoberta": _TEXT,
    "XLNet": _TEXT,
    "Xception": {
        "stackwise_conv_filters": [[8, 16], [16, 16], [16, 32]],
        "stackwise_pooling": [True, False, True], **_IMAGE,
    },
}
# fmt: on


def composed():
    """Maps the names of backbones made of other models to their builders."""
    from keras_hub import layers
    from keras_hub import models

    def vae():
        # keras-hub does not export it.
        from keras_hub.src.models.vae import vae_backbone

        return vae_backbone.VAEBackbone(**_VAE, name="vae")

    def pair(prefix, **more):
        vision_encoder = getattr(models, f"{prefix}VisionEncoder")
        text_encoder = getattr(models, f"{prefix}TextEncoder")
        return getattr(models, f"{prefix}Backbone")(
            vision_encoder=vision_encoder(**_VIT),
            text_encoder=text_encoder(**_CLIP_TEXT),
            **more,
        )

    def stable_diffusion(**more):
        backbone = models.StableDiffusion3Backbone(
            vae=vae(),
            clip_l=models.CLIPTextEncoder(
                **_CLIP_TEXT, intermediate_output_index=-2, name="clip_l"
            ),
            clip_g=models.CLIPTextEncoder(
                **_CLIP_TEXT, intermediate_output_index=-2, name="clip_g"
            ),
            **{**_MMDIT, **more},
        )
        # Before that, TensorFlow cannot trace it.
        backbone.configure_scheduler(num_steps=2)
        return backbone

    return {
        "CLIP": lambda: pair("CLIP", projection_dim=16),
        "MetaCLIP2": lambda: pair("MetaCLIP2", projection_dim=16),
        "SigLIP": lambda: pair("SigLIP"),
        "DFine": lambda: models.DFineBackbone(
            backbone=models.HGNetV2Backbone(**_HGNET), **_DFINE
        ),
        "DeepLabV3": lambda: models.DeepLabV3Backbone(
            image_encoder=models.ResNetBackbone(**_RESNET), **_DEEPLAB
        ),
        "DepthAnything": lambda: models.DepthAnythingBackbone(
            image_encoder=models.DINOV2Backbone(**_DINO_OF_DEPTH), **_DEPTH
        ),
        "Gemma3 with images": lambda: models.Gemma3Backbone(
            vision_encoder=models.Gemma3VisionEncoder(**_GEMMA_IMAGES),
            **_SETTINGS["Gemma3"],
        ),
        "PARSeq": lambda: models.PARSeqBackbone(
            image_encoder=models.ViTBackbone(
                **_SETTINGS["ViT"], use_class_token=False
            ),
            **_PARSEQ,
        ),
        "RetinaNet": lambda: models.RetinaNetBackbone(
            image_encoder=models.ResNetBackbone(**_RESNET), **_RETINANET
        ),
        "SAM": lambda: models.SAMBackbone(
            image_encoder=models.ViTDetBackbone(**_SETTINGS["ViTDet"]),
            prompt_encoder=layers.SAMPromptEncoder(**_PROMPTS),
            mask_decoder=layers.SAMMaskDecoder(**_MASK_DECODER),
        ),
        "SegFormer": lambda: models.SegFormerBackbone(
            image_encoder=models.MiTBackbone(**_MIT), projection_filters=16
        ),
        "StableDiffusion3": stable_diffusion,
        "StableDiffusion3 3.5": lambda: stable_diffusion(**_MMDIT_3_5),
        "StableDiffusion3 diffuser": lambda: stable_diffusion().diffuser,
        "StableDiffusion3 text encoder": lambda: stable_diffusion().clip_l,
        "VAE": vae,
    }


def table():
    """Maps the names in the table to functions that build the models."""
    from keras_hub import models

    def task(name, backbone):
        made = getattr(models, name)
        arguments = inspect.signature(made.__init__).parameters
        more = {k: v for k, v in _HEADS.items() if k in arguments}
        if name == "PARSeqCausalLM":  # asks its preprocessor for the last token
            more["preprocessor"] = models.PARSeqCausalLMPreprocessor(
                tokenizer=models.PARSeqTokenizer()
            )
        return made(backbone=backbone(), **{"preprocessor": None, **more})

    def plain(name, settings):
        return getattr(models, name)(**settings)

    backbones = {
        name: functools.partial(plain, f"{name.split()[0]}Backbone", settings)
        for name, settings in _SETTINGS.items()
    }
    found = {}
    for name, backbone in sorted({**backbones, **composed()}.items()):
        family, _, variant = name.partition(" ")
        found[f"{family}Backbone {variant}".strip()] = backbone
        for kind in _TASKS:
            if not variant and hasattr(models, family + kind):
                found[family + kind] = functools.partial(
                    task, family + kind, backbone
                )
    return found


def inputs_of(model, name):
    """Returns specs of one example, also where the model leaves sizes open.

    They are `tf.TensorSpec`s and arrays, in the structure that the model takes.
    """
    import numpy as np
    import tensorflow as tf

    given = {}
    for start, examples in _EXAMPLES.items():
        if name.startswith(start):
            given = examples

    def example(x, key=None):
        value = given.get(key, [n or _OPEN for n in x.shape[1:]])
        if isinstance(value, range):
            return np.array([value], x.dtype)
        return tf.TensorSpec([1, *value], x.dtype)

    if isinstance(model.input, dict):
        return {key: example(x, key) for key, x in model.input.items()}
    return tf.nest.map_structure(example, model.input)


def others(model, scores, inputs):
    """Says why kernels have no score: "2 zero-initialized, 1 unused"."""
    import numpy as np
    import tensorflow as tf

    from synflow_tf.graph import variables

    held = {x.path: x.variable for x in variables.weights(model)}
    missing = [held[path] for path, x in scores.items() if not np.any(x)]
    if not missing:
        return ""
    batch = tf.nest.map_structure(lambda x: tf.ones(x.shape, x.dtype), inputs)
    missing = [getattr(v, "value", v) for v in missing]
    with tf.GradientTape() as tape:
        outputs = tf.nest.flatten(model(batch, training=False))
    gradients = tape.gradient(outputs, missing)
    counts = collections.Counter(
        "unused"
        if gradient is None
        else "unscored"
        if np.any(variable)
        else "zero-initialized"
        for variable, gradient in zip(missing, gradients, strict=True)
    )
    return ", ".join(f"{n} {reason}" for reason, n in counts.items())


def said(error):
    """Returns the first sentence of an error, short enough for a cell."""
    text = " ".join(str(error).split()) or type(error).__name__
    text = re.split(r"(?<=[.;:]) (?=[A-Z])", text)[0].replace("|", "\\|")
    return textwrap.shorten(text, _LONGEST_ERROR, placeholder=" ...")


def row(name, builder):
    """Builds and scores a model, and returns the cells of its row."""
    import keras
    import numpy as np

    import synflow_tf

    keras.utils.set_random_seed(0)
    model = builder()
    inputs = inputs_of(model, name)
    start = time.perf_counter()
    try:
        scores = synflow_tf.score(model, inputs=inputs)
    except (TypeError, ValueError) as error:  # what the library raises
        return [name, "", "", "", said(error), ""]
    seconds = time.perf_counter() - start
    return [
        name,
        str(len(scores)),
        f"{scores.log10_flow:.1f}",
        str(sum(bool(np.any(score)) for score in scores.values())),
        others(model, scores, inputs),
        f"{seconds:.1f}",
    ]


def introduction():
    """Returns what is above the table, in Markdown."""
    import keras
    import keras_hub
    import tensorflow as tf

    command = "python benchmarks/reach.py"
    if _MODELS.present:
        command += f" --models={','.join(_MODELS.value)}"
    paragraphs = [
        "# SynFlow on the models of keras-hub",
        f"Written by `{command}` with keras-hub {keras_hub.__version__}, keras "
        f"{keras.__version__}, TensorFlow {tf.__version__} and "
        f"{os.cpu_count()} CPU cores.",
        "Small instances with random weights, scored once. *Kernels* are the "
        "weights that would be pruned, *R* is the flow, *scored* are the "
        "kernels of which a score is not 0. *The others* are "
        '"unused" if no output depends on them, "zero-initialized" if all of '
        'their values are 0, "unscored" if only such kernels or constants lie '
        "before or behind them; or the cell has the beginning of an error. "
        "*Seconds* include tracing.",
    ]
    return "\n\n".join(textwrap.fill(text, 80) for text in paragraphs)


def write(path, text, rows):
    """Writes the text and the table to a file."""
    cells = [_COLUMNS, ["---", "---:", "---:", "---:", "---", "---:"], *rows]
    lines = "".join(f"| {' | '.join(line)} |\n" for line in cells)
    path.write_text(f"{text}\n\n{lines}")


def main(argv):
    """Scores what the flags ask for."""
    if len(argv) > 1:
        raise app.UsageError(f"Unknown arguments: {argv[1:]}")
    import keras

    builders = table()
    wanted = tuple(_MODELS.value)
    if wanted != ("all",):
        unknown = [
            start
            for start in wanted
            if not any(name.startswith(start) for name in builders)
        ]
        if unknown:
            raise app.UsageError(f"No model begins with: {unknown}")
        builders = {k: v for k, v in builders.items() if k.startswith(wanted)}
    rows = []
    for name, builder in builders.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            rows.append(row(name, builder))
        write(pathlib.Path(_OUTPUT.value), introduction(), rows)
        print(" | ".join(rows[-1]), flush=True)
        keras.backend.clear_session()
        gc.collect()


if __name__ == "__main__":
    app.run(main)
