"""What must hold on a machine with a GPU, in ten minutes and without a network: `make gpu-check`.

Each part is a process of its own, so that one that crashes or hangs does not end the others. On a
machine without a GPU, all parts run on the processor with a small model: the program is then known
to be right where a GPU is.
"""
