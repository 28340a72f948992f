"""One module per migration: ``NNNN_pre_<name>`` adds, ``NNNN_post_<name>`` takes away."""
