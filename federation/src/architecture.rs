//! Model architectures: what the parameters are called, what shape they have and how they begin.
//!
//! A plan names an architecture; trainers, aggregation and auditors all derive the parameter list from it, so a weights
//! file with other names or shapes is refused before anything is computed from it. A network gives one logit, that of the
//! positive one of two classes, or one logit for each of several classes; any other model is a list of tensors, which
//! external trainers understand.

mod check;
mod custom;
mod initial_weights;
mod layers;
mod parameters;
#[cfg(test)]
mod tests;
mod width;

use serde::{Deserialize, Serialize};

pub use check::ArchitectureError;
pub use custom::{CustomTensor, DIMENSIONS_MAX, TENSOR_NAME_LENGTH_MAX};
pub use initial_weights::initialization_seed;
pub use layers::{ConvolutionLayer, ImageShape, LinearLayer, ResidualBlock, groups};
pub use width::WidestLayer;

/// Most input features of a table's row.
pub const FEATURES_MAX: u32 = 65_536;

/// Most hidden layers of a network. One digit is enough to number the layers, so the order of the names is the order of the
/// layers.
pub const HIDDEN_LAYERS_MAX: usize = 8;

/// Most units of a hidden layer.
pub const LAYER_WIDTH_MAX: u32 = 16_384;

/// Most classes of a label.
pub const CLASSES_MAX: u32 = 1024;

/// Most channels of an image.
pub const CHANNELS_MAX: u32 = 64;

/// Largest height or width of an image.
pub const IMAGE_SIDE_MAX: u32 = 1024;

/// Most values of an image: channels times height times width.
pub const IMAGE_VALUES_MAX: u32 = 1 << 18;

/// Most convolutions of a convolutional network, and most stages of a residual one: numbered with one digit.
pub const CONVOLUTIONS_MAX: usize = 8;

/// Most filters of a convolution.
pub const FILTERS_MAX: u32 = 2048;

/// Largest height and width of a filter.
pub const KERNEL_MAX: u32 = 15;

/// Most blocks of a stage of a residual network: numbered with one digit.
pub const BLOCKS_MAX: u32 = 8;

/// Most values that all convolutions together may give for one image: 64 MiB of 32-bit floats, of which training keeps a
/// few copies.
pub const ACTIVATIONS_MAX: u64 = 1 << 24;

/// Most parameters of a model: 1 GiB of 32-bit floats.
pub const PARAMETERS_MAX: u64 = 1 << 28;

/// Name and shape of one parameter tensor.
pub type ParameterShape = (String, Vec<u64>);

/// Name, shape and values (row-major) of one parameter tensor.
pub type ParameterValues = (String, Vec<u64>, Vec<f32>);

/// A network that maps a row of features to one logit, or to one for each class.
///
/// `classes` is the same in all: absent for two classes told apart by one logit, that of the positive class; otherwise that
/// many classes with a logit each, of which softmax makes probabilities. An image is a row of `channels * height * width`
/// features, channel after channel and in each row after row.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Architecture {
    /// One linear layer.
    LogisticRegression {
        /// Values per row.
        features: u32,
        /// Classes, where they are not two told apart by one logit.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        classes: Option<u32>,
    },
    /// Linear layers with rectified linear units between them.
    MultilayerPerceptron {
        /// Values per row.
        features: u32,
        /// Units of each hidden layer, first to last.
        hidden: Vec<u32>,
        /// Classes, where they are not two told apart by one logit.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        classes: Option<u32>,
    },
    /// A network like LeNet (LeCun et al. 1998): convolutions without padding, each followed by rectified linear units and
    /// 2 x 2 max pooling, and then linear layers with rectified linear units between them.
    Convolutional {
        /// Channels of an image.
        channels: u32,
        /// Rows of an image.
        height: u32,
        /// Values in a row of an image.
        width: u32,
        /// Filters of each convolution, first to last.
        #[serde(default = "default_convolutions")]
        convolutions: Vec<u32>,
        /// Height and width of every filter.
        #[serde(default = "default_kernel")]
        kernel: u32,
        /// Units of each hidden linear layer, first to last; there need not be any.
        #[serde(default = "default_hidden")]
        hidden: Vec<u32>,
        /// Classes, where they are not two told apart by one logit.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        classes: Option<u32>,
    },
    /// A residual network (He et al., arXiv 1512.03385) of 3 x 3 convolutions, with group normalisation (Wu and He,
    /// arXiv 1803.08494) in place of batch normalisation: it keeps no running statistics, so that everything the model
    /// needs is a parameter that is averaged like the others.
    Residual {
        /// Channels of an image.
        channels: u32,
        /// Rows of an image.
        height: u32,
        /// Values in a row of an image.
        width: u32,
        /// Filters of the convolutions of each stage; every stage after the first halves height and width.
        #[serde(default = "default_widths")]
        widths: Vec<u32>,
        /// Blocks of each stage, of two convolutions each.
        #[serde(default = "default_blocks")]
        blocks: u32,
        /// Classes, where they are not two told apart by one logit.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        classes: Option<u32>,
    },
    /// Any parameters, for external trainers; the built-in one neither trains nor evaluates them.
    Custom {
        /// The parameters in the order of their names.
        tensors: Vec<CustomTensor>,
    },
}

fn default_convolutions() -> Vec<u32> {
    vec![16, 32]
}

const fn default_kernel() -> u32 {
    5
}

fn default_hidden() -> Vec<u32> {
    vec![128]
}

fn default_widths() -> Vec<u32> {
    vec![16, 32, 64]
}

const fn default_blocks() -> u32 {
    2
}

impl Architecture {
    /// A logistic regression of two classes.
    pub const fn logistic_regression(features: u32) -> Self {
        Self::LogisticRegression { features, classes: None }
    }

    /// A multilayer perceptron of two classes.
    pub fn multilayer_perceptron(features: u32, hidden: &[u32]) -> Self {
        Self::MultilayerPerceptron { features, hidden: hidden.to_vec(), classes: None }
    }

    /// The name of the kind, as in plans and policies.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::LogisticRegression { .. } => "logistic_regression",
            Self::MultilayerPerceptron { .. } => "multilayer_perceptron",
            Self::Convolutional { .. } => "convolutional",
            Self::Residual { .. } => "residual",
            Self::Custom { .. } => "custom",
        }
    }

    /// Values per input row; none if they are too many to be counted, or if only an external trainer knows what goes in.
    pub fn inputs(&self) -> Option<u32> {
        match self {
            Self::LogisticRegression { features, .. } | Self::MultilayerPerceptron { features, .. } => Some(*features),
            Self::Convolutional { .. } | Self::Residual { .. } => self.image()?.values(),
            Self::Custom { .. } => None,
        }
    }

    /// The form of the images that the network takes; none where it takes rows of a table.
    pub fn image(&self) -> Option<ImageShape> {
        match *self {
            Self::LogisticRegression { .. } | Self::MultilayerPerceptron { .. } | Self::Custom { .. } => None,
            Self::Convolutional { channels, height, width, .. } | Self::Residual { channels, height, width, .. } => {
                Some(ImageShape { channels, height, width })
            }
        }
    }

    /// Classes with a logit each; none for two classes told apart by one logit.
    pub const fn class_logits(&self) -> Option<u32> {
        match self {
            Self::LogisticRegression { classes, .. }
            | Self::MultilayerPerceptron { classes, .. }
            | Self::Convolutional { classes, .. }
            | Self::Residual { classes, .. } => *classes,
            Self::Custom { .. } => None,
        }
    }

    /// Classes that the network tells apart.
    pub fn classes(&self) -> u32 {
        self.class_logits().unwrap_or(2)
    }

    /// Logits per row: one, or one for each class.
    pub fn outputs(&self) -> u32 {
        self.class_logits().unwrap_or(1)
    }
}
