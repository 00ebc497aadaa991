"""Less work with equal results.

Two parts are for a CPU alone. They are imported only in the branch that a CPU takes, so a run on a
GPU never loads them:

``bf16_emulation``
    Products of bfloat16 on processors that have no fast instructions for them.
``cpu_prefill``
    Prompts are read a few at a time, so that intermediate results stay in the processor's cache.

The other parts work on every device:

``rounded_products``
    The context of a training's forward passes, and of layers that are computed again.
``prefill``
    Reads prompts and keeps their keys and values.
``prefix_packing``
    Reads the prompt that the members of a group share once.
``frozen_layer_cache``
    Keeps the output of the layers that are not trained, in main memory.
``last_layer``
    Skips the parts of the last layer and the head whose results are not used.
"""
