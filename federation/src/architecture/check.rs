//! The bounds of an architecture.

use super::{
    ACTIVATIONS_MAX, Architecture, BLOCKS_MAX, CHANNELS_MAX, CLASSES_MAX, CONVOLUTIONS_MAX, ConvolutionLayer,
    FEATURES_MAX, FILTERS_MAX, HIDDEN_LAYERS_MAX, IMAGE_SIDE_MAX, IMAGE_VALUES_MAX, ImageShape, KERNEL_MAX,
    LAYER_WIDTH_MAX, PARAMETERS_MAX, custom,
    custom::{DIMENSIONS_MAX, TENSOR_NAME_LENGTH_MAX},
};
use crate::tensors::TENSORS_MAX;

/// An architecture that is not allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ArchitectureError {
    /// No input features, or more than [`FEATURES_MAX`].
    #[error("{found} features: use 1 to {FEATURES_MAX}")]
    Features {
        /// Features asked for.
        found: u32,
    },
    /// No hidden layer (that is a logistic regression), or more than [`HIDDEN_LAYERS_MAX`].
    #[error("{found} hidden layers: use 1 to {HIDDEN_LAYERS_MAX}, or a logistic regression")]
    HiddenLayers {
        /// Hidden layers asked for.
        found: usize,
    },
    /// A hidden layer without units or with more than [`LAYER_WIDTH_MAX`].
    #[error("hidden layer {layer} has {found} units: use 1 to {LAYER_WIDTH_MAX}")]
    LayerWidth {
        /// Number of the layer, from 0.
        layer: usize,
        /// Units asked for.
        found: u32,
    },
    /// Fewer than two classes, or more than [`CLASSES_MAX`].
    #[error("{found} classes: use 2 to {CLASSES_MAX}, or leave classes out for two that one logit tells apart")]
    Classes {
        /// Classes asked for.
        found: u32,
    },
    /// An image without values, or too large a one.
    #[error(
        "images of {channels} x {height} x {width}: use up to {CHANNELS_MAX} channels, sides up to {IMAGE_SIDE_MAX} and up to \
         {IMAGE_VALUES_MAX} values in all"
    )]
    Image {
        /// Channels asked for.
        channels: u32,
        /// Height asked for.
        height: u32,
        /// Width asked for.
        width: u32,
    },
    /// No convolution or stage, or more than [`CONVOLUTIONS_MAX`].
    #[error("{found} convolutions or stages: use 1 to {CONVOLUTIONS_MAX}")]
    Convolutions {
        /// Convolutions or stages asked for.
        found: usize,
    },
    /// A convolution or stage without filters or with more than [`FILTERS_MAX`].
    #[error("convolution or stage {layer} has {found} filters: use 1 to {FILTERS_MAX}")]
    Filters {
        /// Number of the convolution or stage, from 0.
        layer: usize,
        /// Filters asked for.
        found: u32,
    },
    /// Filters without a place, or larger than [`KERNEL_MAX`].
    #[error("filters of {found} x {found}: use 1 to {KERNEL_MAX}")]
    Kernel {
        /// Height and width asked for.
        found: u32,
    },
    /// Nothing is left of the image.
    #[error("nothing is left of the image behind convolution {layer}: use fewer convolutions or a smaller kernel")]
    ImageUsedUp {
        /// Number of the convolution, from 0.
        layer: usize,
    },
    /// A stage without blocks, or with more than [`BLOCKS_MAX`].
    #[error("{found} blocks in a stage: use 1 to {BLOCKS_MAX}")]
    Blocks {
        /// Blocks asked for.
        found: u32,
    },
    /// More than [`ACTIVATIONS_MAX`] values for one image.
    #[error(
        "the convolutions give {found} values for an image, at most {ACTIVATIONS_MAX} are supported: use fewer filters"
    )]
    Activations {
        /// Values that all convolutions give.
        found: u64,
    },
    /// No tensor, or more than a file can hold.
    #[error("{found} tensors: use 1 to {TENSORS_MAX}")]
    Tensors {
        /// Tensors asked for.
        found: usize,
    },
    /// Tensors are listed twice or out of order.
    #[error("tensor {name:?} must stand once, and the tensors in the order of their names (by bytes)")]
    TensorOrder {
        /// The tensor that stands in the wrong place.
        name: String,
    },
    /// A name that is not allowed for a tensor.
    #[error("{name:?} is no valid name of a tensor: use 1 to {TENSOR_NAME_LENGTH_MAX} visible ASCII characters")]
    TensorName {
        /// The beginning of the name.
        name: String,
    },
    /// Too many dimensions, or an empty one.
    #[error("tensor {name:?} has shape {shape:?}: use at most {DIMENSIONS_MAX} dimensions of at least 1")]
    TensorShape {
        /// The tensor.
        name: String,
        /// Its shape.
        shape: Vec<u64>,
    },
    /// It is not said how a tensor begins, or in two ways.
    #[error("tensor {name:?} needs either a bound of at least 0 or a constant for its initial values")]
    TensorValues {
        /// The tensor.
        name: String,
    },
    /// More than [`PARAMETERS_MAX`] parameters in all.
    #[error("{found} parameters, at most {PARAMETERS_MAX} are supported: use fewer or narrower layers")]
    TooManyParameters {
        /// Parameters of the architecture.
        found: u64,
    },
}

impl Architecture {
    /// Checks every bound.
    ///
    /// # Errors
    ///
    /// [`ArchitectureError`] names the first bound that is broken.
    pub fn validate(&self) -> Result<(), ArchitectureError> {
        match self {
            Self::LogisticRegression { features, .. } => check_features(*features)?,
            Self::MultilayerPerceptron { features, hidden, .. } => {
                check_features(*features)?;
                if hidden.is_empty() {
                    return Err(ArchitectureError::HiddenLayers { found: 0 });
                }
                check_hidden(hidden)?;
            }
            Self::Convolutional { channels, height, width, convolutions, kernel, hidden, .. } => {
                check_image(ImageShape { channels: *channels, height: *height, width: *width })?;
                check_filters(convolutions)?;
                if !(1..=KERNEL_MAX).contains(kernel) {
                    return Err(ArchitectureError::Kernel { found: *kernel });
                }
                check_hidden(hidden)?;
                self.check_sizes()?;
            }
            Self::Residual { channels, height, width, widths, blocks, .. } => {
                check_image(ImageShape { channels: *channels, height: *height, width: *width })?;
                check_filters(widths)?;
                if !(1..=BLOCKS_MAX).contains(blocks) {
                    return Err(ArchitectureError::Blocks { found: *blocks });
                }
            }
            Self::Custom { tensors } => custom::validate(tensors)?,
        }
        if let Some(found) = self.class_logits().filter(|classes| !(2..=CLASSES_MAX).contains(classes)) {
            return Err(ArchitectureError::Classes { found });
        }
        self.check_activations()?;
        let found = self.parameter_count();
        if found > PARAMETERS_MAX { Err(ArchitectureError::TooManyParameters { found }) } else { Ok(()) }
    }

    /// Whether something of the image is left behind every convolution and its pooling.
    fn check_sizes(&self) -> Result<(), ArchitectureError> {
        let used_up = |layer: &ConvolutionLayer| layer.output().pooled().values().is_none_or(|values| values == 0);
        match self.convolutions().iter().position(used_up) {
            Some(layer) => Err(ArchitectureError::ImageUsedUp { layer }),
            None => Ok(()),
        }
    }

    fn check_activations(&self) -> Result<(), ArchitectureError> {
        let (convolutions, stem, blocks) = (self.convolutions(), self.stem(), self.residual_blocks());
        let in_blocks =
            blocks.iter().flat_map(|block| [Some(&block.first), Some(&block.second), block.shortcut.as_ref()]);
        let values = |layer: &ConvolutionLayer| {
            let ImageShape { channels, height, width } = layer.output();
            u64::from(channels).saturating_mul(height.into()).saturating_mul(width.into())
        };
        let layers = convolutions.iter().chain(stem.as_ref()).chain(in_blocks.flatten());
        let found = layers.map(values).fold(0, u64::saturating_add);
        if found > ACTIVATIONS_MAX { Err(ArchitectureError::Activations { found }) } else { Ok(()) }
    }
}

fn check_features(found: u32) -> Result<(), ArchitectureError> {
    if (1..=FEATURES_MAX).contains(&found) { Ok(()) } else { Err(ArchitectureError::Features { found }) }
}

fn check_hidden(hidden: &[u32]) -> Result<(), ArchitectureError> {
    if hidden.len() > HIDDEN_LAYERS_MAX {
        return Err(ArchitectureError::HiddenLayers { found: hidden.len() });
    }
    match hidden.iter().enumerate().find(|(_, found)| !(1..=LAYER_WIDTH_MAX).contains(*found)) {
        Some((layer, &found)) => Err(ArchitectureError::LayerWidth { layer, found }),
        None => Ok(()),
    }
}

fn check_image(ImageShape { channels, height, width }: ImageShape) -> Result<(), ArchitectureError> {
    let sides = [height, width].iter().all(|side| (1..=IMAGE_SIDE_MAX).contains(side));
    let values = ImageShape { channels, height, width }.values();
    if sides && (1..=CHANNELS_MAX).contains(&channels) && values.is_some_and(|values| values <= IMAGE_VALUES_MAX) {
        Ok(())
    } else {
        Err(ArchitectureError::Image { channels, height, width })
    }
}

fn check_filters(filters: &[u32]) -> Result<(), ArchitectureError> {
    if !(1..=CONVOLUTIONS_MAX).contains(&filters.len()) {
        return Err(ArchitectureError::Convolutions { found: filters.len() });
    }
    match filters.iter().enumerate().find(|(_, found)| !(1..=FILTERS_MAX).contains(*found)) {
        Some((layer, &found)) => Err(ArchitectureError::Filters { layer, found }),
        None => Ok(()),
    }
}
