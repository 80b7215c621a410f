"""Wrappers and trainers, each with the test that keeps its row; the tests stand elsewhere."""

from __future__ import annotations

from dataclasses import dataclass

from tests.compatibility.outcome import Outcome


@dataclass(frozen=True)
class Wrapper:
    """Something around a model, an optimizer or a loop, and what comes of it.

    Attributes:
        name: For the table.
        file: Where its test is, from the root of the repository.
        test: The test function that fails if the row is not true.
        outcome: See `outcome.MEANING`.
        note: What a user should know, for the table.
    """

    name: str
    file: str
    test: str
    outcome: Outcome = "works"
    note: str = ""


_DDP = "tests/wrappers/test_ddp.py"
_FSDP = "tests/wrappers/test_fsdp.py"
_COMPILE = "tests/wrappers/test_compile.py"
_CHECKPOINTING = "tests/wrappers/test_checkpointing.py"
_LOOPS = "tests/scheduler/test_training_loops.py"
_TWO = "tests/scheduler/test_two_optimizers.py"
_USES = "tests/compatibility/test_uses.py"
_OPTIMIZERS = "tests/compatibility/test_optimizers.py"
_ACCELERATE = "tests/integrations/test_accelerate.py"
_LIGHTNING = "tests/integrations/test_lightning.py"
_TRAINER = "tests/integrations/test_transformers.py"
_USE = "test_use_of_a_model_that_is_partly_frozen"
_CONTRACT = "test_optimizer_keeps_the_contract"

WRAPPERS = [
    Wrapper(
        "`DistributedDataParallel`",
        _DDP,
        "test_gradients_are_right_at_every_step_and_the_exchange_shrinks",
    ),
    Wrapper("`DistributedDataParallel`, compiled", _DDP, "test_a_compiled_wrapper"),
    Wrapper(
        "`DistributedDataParallel` with `no_sync`",
        _DDP,
        "test_accumulation_without_exchange_between",
    ),
    Wrapper(
        "`DistributedDataParallel` with an optimizer in the backward pass, or `mixed_precision=`",
        _DDP,
        "test_a_wrapper_with_hooks_of_its_own_is_refused",
        "refused",
    ),
    Wrapper(
        "`DistributedDataParallel` with delayed all-reduce",
        _DDP,
        "test_an_exchange_that_is_put_off_is_refused",
        "refused",
    ),
    Wrapper(
        "processes that want other freezes",
        _DDP,
        "test_ranks_that_disagree_stop_before_anything_changes",
        "refused",
    ),
    Wrapper("`fully_shard` (FSDP2)", _FSDP, "test_fully_shard"),
    Wrapper(
        "`ZeroRedundancyOptimizer`",
        _FSDP,
        "test_zero_redundancy_optimizer",
        note="made before the first step",
    ),
    Wrapper(
        "`ZeroRedundancyOptimizer` with `overlap_with_ddp=True`",
        _FSDP,
        "test_zero_redundancy_optimizer_refusals",
        "refused",
    ),
    Wrapper(
        "`torch.distributed.checkpoint`",
        _FSDP,
        "test_distributed_checkpoint",
        note="load FreezeOut first",
    ),
    Wrapper("`DataParallel`", _USES, _USE, note="on a CPU alone, where it only passes on"),
    Wrapper(
        "`torch.compile` of the whole model",
        _COMPILE,
        "test_a_whole_model_takes_one_graph_for_each_freeze_and_never_too_many",
        note="compiled again at each freeze",
    ),
    Wrapper(
        "`torch.compile` of each block",
        _COMPILE,
        "test_equal_blocks_take_three_graphs_however_many_freeze",
    ),
    Wrapper(
        "a compiled function around the model",
        _COMPILE,
        "test_a_compiled_function_around_the_model_is_noticed_too",
        "told",
        "where its graphs may run out",
    ),
    Wrapper(
        "more shapes than `recompile_limit`",
        _COMPILE,
        "test_more_shapes_than_the_limit_are_announced",
        "told",
    ),
    Wrapper(
        "activation checkpointing",
        _CHECKPOINTING,
        "test_frozen_blocks_are_not_computed_again",
        note="`use_reentrant=False`",
    ),
    Wrapper(
        "activation checkpointing with `use_reentrant=True`",
        _CHECKPOINTING,
        "test_reentrant_checkpointing_is_refused_in_the_first_step",
        "refused",
    ),
    Wrapper(
        "`enable_input_require_grads`",
        _CHECKPOINTING,
        "test_inputs_that_are_made_to_require_gradients_are_named",
        "told",
        "less is saved",
    ),
    Wrapper("autocast, `GradScaler`", _LOOPS, "test_autocast"),
    Wrapper(
        "`GradScaler` with an optimizer that is all frozen",
        _LOOPS,
        "test_a_scaler_with_nothing_left_to_scale",
        note="ask `is_active` before you step it",
    ),
    Wrapper(
        "conversions that swap parameters (`torch.__future__`)",
        _LOOPS,
        "test_parameters_that_are_swapped_in_a_conversion",
        note="switch it on before layers freeze: PyTorch refuses to swap what was frozen before",
    ),
    Wrapper(
        "momentum encoders (BYOL, MoCo)",
        _LOOPS,
        "test_a_momentum_encoder_defined_first_keeps_its_modes",
    ),
    Wrapper(
        "averages of weights: `AveragedModel`, EMA",
        _LOOPS,
        "test_an_average_of_weights_goes_on_and_meets_the_frozen_layers",
    ),
    Wrapper(
        "schedule-free optimizers",
        _LOOPS,
        "test_a_schedule_free_optimizer_freezes_at_its_average",
        note="`anneal=None`",
    ),
    Wrapper(
        "two optimizers",
        _TWO,
        "test_two_optimizers_freeze_as_one_in_any_order",
        note="`together_with=`",
    ),
    Wrapper(
        "two optimizers without `together_with`",
        _TWO,
        "test_what_two_optimizers_must_agree_on",
        "refused",
    ),
    Wrapper(
        "a trainer's wrapper around the optimizer",
        _LOOPS,
        "test_an_optimizer_in_a_trainer_s_wrapper",
    ),
    Wrapper("Lookahead, SAM, OrthoGrad, ...: optimizers around others", _OPTIMIZERS, _CONTRACT),
    Wrapper("gradient accumulation, clipping", _USES, _USE),
    Wrapper("`torch.func`: `functional_call`, `grad`, `vmap`", _USES, _USE),
    Wrapper(
        "a GAN's generator through its discriminator",
        "tests/freezing/test_boundary.py",
        "test_the_generator_s_pass_through_a_discriminator_is_passed_over",
    ),
    Wrapper("Accelerate", _ACCELERATE, "test_loop_trains_as_one_by_hand_does"),
    Wrapper(
        "Accelerate: accumulation, clipping, mixed precision",
        _ACCELERATE,
        "test_accumulation_clipping_and_mixed_precision_count_updates",
    ),
    Wrapper("Lightning", _LIGHTNING, "test_trainer_trains_as_a_loop_by_hand_does"),
    Wrapper(
        "Lightning: accumulation, clipping, mixed precision",
        _LIGHTNING,
        "test_accumulation_clipping_and_mixed_precision_count_updates",
    ),
    Wrapper(
        "Lightning's `StochasticWeightAveraging`",
        _LIGHTNING,
        "test_stochastic_averaging_is_refused_where_it_spoils_a_frozen_norm",
        "refused",
        "where a norm is frozen",
    ),
    Wrapper("Hugging Face `Trainer`", _TRAINER, "test_trainer_trains_as_a_loop_by_hand_does"),
    Wrapper(
        "Hugging Face `Trainer` with checkpointing",
        _TRAINER,
        "test_checkpointed_backward_stops_at_frozen_layers",
    ),
    Wrapper(
        "Hugging Face `Trainer` on a stream (`IterableDataset`)",
        _TRAINER,
        "test_a_stream_is_trained_on_resumed_and_without_an_example_told",
        "told",
        "it shows no first sample: pass `example=`",
    ),
]
