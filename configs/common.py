"""The settings most runs of the study share; each config changes a few of them."""

from ml_collections import ConfigDict, config_dict


def get_config() -> ConfigDict:
    """The study's settings: 150 px, batch 32, Adam, Keras' split with seed 1337."""
    config = ConfigDict()
    # The run of the study whose curves are drawn behind ours; '' for none.
    config.study_run = ""
    config.workdir = config_dict.placeholder(str)
    config.seed = 0
    config.num_replicas = 1  # seeds trained at once: seed, seed + 1, ...

    config.model = "base_cnn"
    config.image_size = 150
    config.num_classes = config_dict.placeholder(int)  # from the data
    config.input_scaling = "-1_1"
    config.dtype = "float32"
    config.init_from = config_dict.placeholder(str)  # a weights file of Keras
    config.frozen = ()  # names of layers that keep their weights, such as "block1_*"

    config.data = ConfigDict()
    config.data.source = "auto"
    config.data.dir = config_dict.placeholder(str)
    config.data.split = "keras"
    config.data.validation_fraction = 0.2
    config.data.holdout_per_class = 80
    config.data.split_seed = 1337
    config.data.leaked = 0  # held-out images that are trained on too
    config.data.resize = "bilinear"
    config.data.on_bad_image = "error"
    config.data.cache = "auto"  # where decoded images are kept
    config.data.augment = config_dict.placeholder(ConfigDict)

    config.batch_size = 32
    config.max_epochs = 150
    config.loss = "cross_entropy"
    # Of GoogLeNet's auxiliary heads: 1.0 as in the study; the paper has 0.3.
    config.aux_weight = config_dict.placeholder(float)

    # Every optimizer takes its own arguments and leaves the others; the values are Keras' defaults.
    config.optimizer = ConfigDict()
    config.optimizer.name = "adam"
    config.optimizer.learning_rate = 0.001
    config.optimizer.schedule = "constant"
    config.optimizer.schedule_args = ConfigDict()
    config.optimizer.beta_1 = 0.9
    config.optimizer.beta_2 = 0.999
    config.optimizer.rho = 0.95
    config.optimizer.initial_accumulator_value = 0.1
    config.optimizer.momentum = 0.0
    config.optimizer.epsilon = 1e-7

    config.early_stopping = ConfigDict()
    config.early_stopping.monitor = "val_accuracy"
    config.early_stopping.mode = "max"
    config.early_stopping.patience = 10
    config.early_stopping.min_delta = 0.0
    config.early_stopping.restore_best_weights = True

    # A step whose loss or gradient is not finite ends the run ('stop'), changes nothing
    # ('skip_step') or is taken as it is ('ignore').
    config.on_non_finite = "stop"

    config.checkpoint = ConfigDict()
    config.checkpoint.every_minutes = 5.0
    return config
