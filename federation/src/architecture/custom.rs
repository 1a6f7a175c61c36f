//! Models that only an external trainer understands: tensors by name, shape and initial values.

use serde::{Deserialize, Serialize};

use super::{
    ArchitectureError,
    parameters::{Initial, Parameter},
};
use crate::{decimal::Decimal, tensors::TENSORS_MAX};

/// Most dimensions of a tensor.
pub const DIMENSIONS_MAX: usize = 8;

/// Longest name of a tensor, in bytes.
pub const TENSOR_NAME_LENGTH_MAX: usize = 128;

/// One tensor of a custom architecture. Either `bound` or `constant` is there.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CustomTensor {
    /// Its name, unique in the model.
    pub name: String,
    /// Row-major dimensions; empty for a scalar.
    pub shape: Vec<u64>,
    /// Initial values are uniform between minus this and this; 0 for zeros.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bound: Option<Decimal>,
    /// All initial values are this, as of a normalisation's weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub constant: Option<Decimal>,
}

impl CustomTensor {
    /// The tensor with its beginning. A decimal has too few digits to leave the range of a 32-bit float.
    pub(super) fn parameter(&self) -> Parameter {
        Parameter::new(self.name.clone(), self.shape.clone(), self.initial())
    }

    fn initial(&self) -> Initial {
        let value = |decimal: &Decimal| decimal.as_str().parse::<f64>().unwrap_or(0.0);
        match (&self.bound, &self.constant) {
            (Some(bound), _) if bound.is_positive() => Initial::Uniform { bound: value(bound) },
            (None, Some(constant)) => Initial::Constant(value(constant) as f32),
            _ => Initial::Constant(0.0),
        }
    }

    fn validate(&self) -> Result<(), ArchitectureError> {
        let name = || self.name.clone();
        let named = (1..=TENSOR_NAME_LENGTH_MAX).contains(&self.name.len());
        // What the tensors' file cannot be told apart from its own key is no name.
        if !named || !self.name.bytes().all(|byte| byte.is_ascii_graphic()) || self.name == "__metadata__" {
            return Err(ArchitectureError::TensorName {
                name: self.name.chars().take(TENSOR_NAME_LENGTH_MAX).collect(),
            });
        }
        if self.shape.len() > DIMENSIONS_MAX || self.shape.contains(&0) {
            let shape = self.shape.iter().copied().take(DIMENSIONS_MAX + 1).collect();
            return Err(ArchitectureError::TensorShape { name: name(), shape });
        }
        match (&self.bound, &self.constant) {
            (Some(bound), None) if !bound.as_str().starts_with('-') => Ok(()),
            (None, Some(_)) => Ok(()),
            _ => Err(ArchitectureError::TensorValues { name: name() }),
        }
    }
}

/// Checks names, order, shapes and initial values. The sum of the parameters is checked for every architecture.
pub(super) fn validate(tensors: &[CustomTensor]) -> Result<(), ArchitectureError> {
    if !(1..=TENSORS_MAX).contains(&tensors.len()) {
        return Err(ArchitectureError::Tensors { found: tensors.len() });
    }
    tensors.iter().try_for_each(CustomTensor::validate)?;
    match tensors.array_windows().find(|[a, b]| a.name >= b.name) {
        Some([_, second]) => Err(ArchitectureError::TensorOrder { name: second.name.clone() }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::architecture::{Architecture, PARAMETERS_MAX};

    fn tensor(name: &str, shape: &[u64], bound: Option<&str>, constant: Option<&str>) -> CustomTensor {
        let decimal = |text: &str| text.parse().unwrap();
        CustomTensor {
            name: name.to_owned(),
            shape: shape.to_vec(),
            bound: bound.map(decimal),
            constant: constant.map(decimal),
        }
    }

    fn custom(tensors: &[CustomTensor]) -> Architecture {
        Architecture::Custom { tensors: tensors.to_vec() }
    }

    #[test]
    fn tensors_begin_as_the_plan_says() {
        let architecture = custom(&[
            tensor("conv.bias", &[4], Some("0"), None),
            tensor("conv.weight", &[4, 1, 3, 3], Some("0.25"), None),
            tensor("norm.weight", &[4], None, Some("1")),
            tensor("scale", &[], None, Some("-2.5")),
        ]);
        assert_eq!(architecture.validate(), Ok(()));
        assert_eq!((architecture.parameter_count(), architecture.inputs()), (4 + 36 + 4 + 1, None));
        let weights = architecture.initial_weights(3).unwrap();
        let values = |index: usize| weights[index].2.as_slice();
        assert_eq!((values(0), values(2), values(3)), (&[0.0; 4][..], &[1.0; 4][..], &[-2.5][..]));
        assert!(values(0).iter().all(|value| value.is_sign_positive()));
        assert!(values(1).iter().all(|value| (-0.25..0.25).contains(value)));
        assert!(values(1).iter().any(|value| *value < -0.1) && values(1).iter().any(|value| *value > 0.1));
        assert_ne!(architecture.initial_weights(4).unwrap()[1].2, values(1));
        // What is constant takes nothing from the stream that the others are drawn from.
        let file = architecture.layout().unwrap();
        assert_eq!(file.element_count() as u64, architecture.parameter_count());
    }

    #[test]
    fn every_bound_is_checked() {
        use ArchitectureError::{TensorName, TensorOrder, TensorShape, TensorValues, Tensors, TooManyParameters};
        let good = || tensor("b", &[2], Some("0.1"), None);
        let refused = |tensors: &[CustomTensor]| custom(tensors).validate().unwrap_err();
        assert_eq!(refused(&[]), Tensors { found: 0 });
        assert_eq!(refused(&vec![good(); TENSORS_MAX + 1]), Tensors { found: TENSORS_MAX + 1 });
        let long = "a".repeat(TENSOR_NAME_LENGTH_MAX + 1);
        for name in ["", "a b", "naïve", "a\n", "__metadata__", &long] {
            assert!(matches!(refused(&[tensor(name, &[2], Some("0"), None)]), TensorName { .. }), "{name:?}");
        }
        for name in ["a", "b"] {
            let twice = [good(), tensor(name, &[1], None, Some("1"))];
            assert_eq!(refused(&twice), TensorOrder { name: name.to_owned() });
        }
        for shape in [&[0][..], &[2, 0], &[1; DIMENSIONS_MAX + 1]] {
            assert!(matches!(refused(&[tensor("a", shape, Some("0"), None)]), TensorShape { .. }), "{shape:?}");
        }
        for (bound, constant) in [(None, None), (Some("0"), Some("1")), (Some("-0.1"), None)] {
            let wrong = refused(&[tensor("a", &[1], bound, constant)]);
            assert_eq!(wrong, TensorValues { name: "a".to_owned() });
        }
        let wide = [tensor("a", &[PARAMETERS_MAX + 1], Some("0"), None)];
        assert_eq!(refused(&wide), TooManyParameters { found: PARAMETERS_MAX + 1 });
        let huge = [tensor("a", &[u64::MAX, u64::MAX], Some("0"), None), tensor("b", &[u64::MAX], Some("0"), None)];
        assert_eq!(refused(&huge), TooManyParameters { found: u64::MAX });
    }

    #[test]
    fn a_custom_architecture_has_one_encoding() {
        let architecture = custom(&[tensor("a", &[2], Some("0.1"), None), tensor("b", &[], None, Some("1"))]);
        let bytes = fedledger_ledger::codec::encode(&architecture);
        assert_eq!(fedledger_ledger::codec::decode::<Architecture>(&bytes, 1024), Ok(architecture.clone()));
        let json = r#"{"kind":"custom","tensors":[{"name":"a","shape":[2],"bound":"0.1"},{"name":"b","shape":[],"constant":"1"}]}"#;
        assert_eq!(serde_json::to_string(&architecture).unwrap(), json);
        assert_eq!(serde_json::from_str::<Architecture>(json).unwrap(), architecture);
    }
}
