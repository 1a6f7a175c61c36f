//! The widest layer of an architecture, which decides how much an update can tell of single records.

use serde::Serialize;

use super::Architecture;

/// The layer with the most units. Where a layer has more units than a batch has records, crafted weights can give single
/// records a unit, and with it a gradient, of their own (Fowl et al., arXiv 2110.13057).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WidestLayer {
    /// Name of its weights.
    pub tensor: String,
    /// Its units: the first dimension of its weights.
    pub units: u64,
}

impl Architecture {
    /// The first of the layers with the most units; none where no tensor has more than one dimension.
    pub fn widest_layer(&self) -> Option<WidestLayer> {
        let mut widest: Option<WidestLayer> = None;
        for (tensor, shape) in self.parameters() {
            let [units, _, ..] = shape.as_slice() else { continue };
            if widest.as_ref().is_none_or(|widest| widest.units < *units) {
                widest = Some(WidestLayer { tensor, units: *units });
            }
        }
        widest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_the_widest_layers_is_named() {
        let perceptron = |hidden: &[u32]| Architecture::multilayer_perceptron(500, hidden);
        let cases = [(&[32][..], 0, 32), (&[8, 64, 64][..], 1, 64), (&[64, 8][..], 0, 64)];
        for (hidden, layer, units) in cases {
            let expected = WidestLayer { tensor: format!("layer{layer}.weight"), units };
            assert_eq!(perceptron(hidden).widest_layer(), Some(expected), "{hidden:?}");
        }
        let logistic = Architecture::logistic_regression(500);
        assert_eq!(logistic.widest_layer().map(|layer| layer.units), Some(1), "inputs are no units");
    }
}
