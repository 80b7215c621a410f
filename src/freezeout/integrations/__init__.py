"""FreezeOut in other people's trainers. Each module here imports one framework, this one none.

::

    lightning      FreezeOutCallback for Lightning's Trainer
    transformers   FreezeOutCallback for the Trainer of Hugging Face transformers

With Accelerate, and in Lightning's ``configure_optimizers``, `freezeout.FreezeOut` is enough.
"""
