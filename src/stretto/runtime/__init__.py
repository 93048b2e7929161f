"""Do it: a program on `torch.distributed`."""
