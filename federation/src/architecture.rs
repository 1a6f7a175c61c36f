//! Model architectures: what the parameters are called, what shape they have and how they begin.
//!
//! A plan names an architecture; trainers, aggregation and auditors all derive the parameter list from it, so a weights
//! file with other names or shapes is refused before anything is computed from it. The built-in trainer knows networks with
//! one output logit, that of the positive class; any other model is a list of tensors, which external trainers understand.

mod custom;
mod initial_weights;

use serde::{Deserialize, Serialize};

use crate::tensors::TENSORS_MAX;

pub use custom::{CustomTensor, DIMENSIONS_MAX, TENSOR_NAME_LENGTH_MAX};
pub use initial_weights::initialization_seed;

/// Most input features of a model.
pub const FEATURES_MAX: u32 = 65_536;

/// Most hidden layers of a multilayer perceptron. One digit is enough to number the layers, so the order of the names is
/// the order of the layers.
pub const HIDDEN_LAYERS_MAX: usize = 8;

/// Most units of a hidden layer.
pub const LAYER_WIDTH_MAX: u32 = 16_384;

/// Most parameters of a model: 1 GiB of 32-bit floats.
pub const PARAMETERS_MAX: u64 = 1 << 28;

/// Name and shape of one parameter tensor.
pub type ParameterShape = (String, Vec<u64>);

/// Name, shape and values (row-major) of one parameter tensor.
pub type ParameterValues = (String, Vec<u64>, Vec<f32>);

/// A network that maps a row of features to one logit.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Architecture {
    /// One linear layer.
    LogisticRegression {
        /// Values per row.
        features: u32,
    },
    /// Linear layers with rectified linear units between them.
    MultilayerPerceptron {
        /// Values per row.
        features: u32,
        /// Units of each hidden layer, first to last.
        hidden: Vec<u32>,
    },
    /// Any parameters, for external trainers; the built-in one neither trains nor evaluates them.
    Custom {
        /// The parameters in the order of their names.
        tensors: Vec<CustomTensor>,
    },
}

/// One linear layer: `inputs` values to `outputs` values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinearLayer {
    /// Values that go in.
    pub inputs: u32,
    /// Values that come out.
    pub outputs: u32,
}

/// An architecture that is not allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
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
    /// More than [`PARAMETERS_MAX`] parameters in all.
    #[error("{found} parameters, at most {PARAMETERS_MAX} are supported: use fewer or narrower layers")]
    TooManyParameters {
        /// Parameters of the architecture.
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
}

impl Architecture {
    /// The kind, as in plans and policies.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::LogisticRegression { .. } => "logistic_regression",
            Self::MultilayerPerceptron { .. } => "multilayer_perceptron",
            Self::Custom { .. } => "custom",
        }
    }

    /// Values per input row; none where only an external trainer knows what goes in.
    pub fn features(&self) -> Option<u32> {
        match self {
            Self::LogisticRegression { features } | Self::MultilayerPerceptron { features, .. } => Some(*features),
            Self::Custom { .. } => None,
        }
    }

    /// Checks every bound.
    ///
    /// # Errors
    ///
    /// [`ArchitectureError`] names the first bound that is broken.
    pub fn validate(&self) -> Result<(), ArchitectureError> {
        if let Self::Custom { tensors } = self {
            custom::validate(tensors)?;
        }
        if let Some(found) = self.features().filter(|features| !(1..=FEATURES_MAX).contains(features)) {
            return Err(ArchitectureError::Features { found });
        }
        if let Self::MultilayerPerceptron { hidden, .. } = self {
            if !(1..=HIDDEN_LAYERS_MAX).contains(&hidden.len()) {
                return Err(ArchitectureError::HiddenLayers { found: hidden.len() });
            }
            for (layer, &found) in hidden.iter().enumerate() {
                if !(1..=LAYER_WIDTH_MAX).contains(&found) {
                    return Err(ArchitectureError::LayerWidth { layer, found });
                }
            }
        }
        let found = self.parameter_count();
        if found > PARAMETERS_MAX { Err(ArchitectureError::TooManyParameters { found }) } else { Ok(()) }
    }

    /// The linear layers, input to output; none of a custom architecture.
    pub fn layers(&self) -> Vec<LinearLayer> {
        let (features, hidden): (u32, &[u32]) = match self {
            Self::LogisticRegression { features } => (*features, &[]),
            Self::MultilayerPerceptron { features, hidden } => (*features, hidden),
            Self::Custom { .. } => return Vec::new(),
        };
        let inputs = std::iter::once(features).chain(hidden.iter().copied());
        let outputs = hidden.iter().copied().chain(std::iter::once(1));
        inputs.zip(outputs).map(|(inputs, outputs)| LinearLayer { inputs, outputs }).collect()
    }

    /// Names and shapes of the parameters, sorted by name: `layer0.bias` of `[outputs]`, `layer0.weight` of
    /// `[outputs, inputs]`, `layer1.bias`, ...; those of a custom architecture as it lists them.
    pub fn parameters(&self) -> Vec<ParameterShape> {
        if let Self::Custom { tensors } = self {
            return tensors.iter().map(|tensor| (tensor.name.clone(), tensor.shape.clone())).collect();
        }
        let layers = self.layers().into_iter().enumerate();
        layers
            .flat_map(|(index, LinearLayer { inputs, outputs })| {
                let (inputs, outputs) = (u64::from(inputs), u64::from(outputs));
                [(format!("layer{index}.bias"), vec![outputs]), (format!("layer{index}.weight"), vec![outputs, inputs])]
            })
            .collect()
    }

    /// Scalars in all parameters, saturating.
    pub fn parameter_count(&self) -> u64 {
        if let Self::Custom { tensors } = self {
            return tensors.iter().fold(0u64, |sum, tensor| sum.saturating_add(tensor.parameter_count()));
        }
        self.layers().iter().fold(0u64, |sum, layer| {
            let (inputs, outputs) = (u64::from(layer.inputs), u64::from(layer.outputs));
            sum.saturating_add(inputs.saturating_mul(outputs)).saturating_add(outputs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn perceptron(features: u32, hidden: &[u32]) -> Architecture {
        Architecture::MultilayerPerceptron { features, hidden: hidden.to_vec() }
    }

    #[test]
    fn parameters_are_listed_by_name() {
        let listed = perceptron(13, &[32, 8]).parameters();
        let expected: [(&str, &[u64]); 6] = [
            ("layer0.bias", &[32]),
            ("layer0.weight", &[32, 13]),
            ("layer1.bias", &[8]),
            ("layer1.weight", &[8, 32]),
            ("layer2.bias", &[1]),
            ("layer2.weight", &[1, 8]),
        ];
        assert_eq!(listed, expected.map(|(name, shape)| (name.to_owned(), shape.to_vec())));
        let deepest = perceptron(1, &[1; HIDDEN_LAYERS_MAX]).parameters();
        assert!(deepest.is_sorted(), "names stay in the order of the layers at the largest depth");
    }

    #[test]
    fn parameters_are_counted() {
        assert_eq!(Architecture::LogisticRegression { features: 13 }.parameter_count(), 14);
        assert_eq!(perceptron(13, &[32]).parameter_count(), 13 * 32 + 32 + 32 + 1);
        assert_eq!(perceptron(u32::MAX, &[u32::MAX, u32::MAX]).parameter_count(), u64::MAX);
    }

    #[test]
    fn every_bound_is_checked() {
        use ArchitectureError::{Features, HiddenLayers, LayerWidth, TooManyParameters};

        let logistic = |features| Architecture::LogisticRegression { features }.validate();
        assert_eq!(logistic(0), Err(Features { found: 0 }));
        assert_eq!(logistic(FEATURES_MAX), Ok(()));
        assert_eq!(logistic(FEATURES_MAX + 1), Err(Features { found: FEATURES_MAX + 1 }));
        assert_eq!(perceptron(1, &[]).validate(), Err(HiddenLayers { found: 0 }));
        assert_eq!(perceptron(1, &[1; 9]).validate(), Err(HiddenLayers { found: 9 }));
        assert_eq!(perceptron(1, &[4, 0]).validate(), Err(LayerWidth { layer: 1, found: 0 }));
        let wide = perceptron(FEATURES_MAX, &[LAYER_WIDTH_MAX]);
        assert_eq!(wide.validate(), Err(TooManyParameters { found: wide.parameter_count() }));
    }

    #[test]
    fn an_architecture_has_one_encoding() {
        for architecture in [Architecture::LogisticRegression { features: 13 }, perceptron(13, &[1024, 7])] {
            let bytes = fedledger_ledger::codec::encode(&architecture);
            assert_eq!(fedledger_ledger::codec::decode::<Architecture>(&bytes, 1024), Ok(architecture.clone()));
            let json = serde_json::to_string(&architecture).unwrap();
            assert_eq!(serde_json::from_str::<Architecture>(&json).unwrap(), architecture);
        }
        let unknown = r#"{"kind":"logistic_regression","features":13,"hidden":[4]}"#;
        assert!(serde_json::from_str::<Architecture>(unknown).is_err(), "a field that has no meaning was ignored");
    }
}
