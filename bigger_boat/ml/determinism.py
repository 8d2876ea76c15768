"""Making a process's trainings give the same numbers for the same seeds."""


def deterministic() -> None:
    """Make this process's TensorFlow give the same numbers for the same seeds; there is no way back."""
    import keras

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
