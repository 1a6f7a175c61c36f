//! Names, shapes and beginnings of the parameters of each architecture.

use super::{Architecture, ConvolutionLayer, CustomTensor, LinearLayer, ParameterShape};

/// One parameter tensor and how it begins.
pub(super) struct Parameter {
    pub(super) name: String,
    pub(super) shape: Vec<u64>,
    pub(super) initial: Initial,
}

/// What a parameter begins with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Initial {
    /// Uniform between minus the bound and the bound.
    Uniform { bound: f64 },
    /// All alike; nothing is drawn for them.
    Constant(f32),
}

impl Initial {
    /// Uniform in ±1/√inputs.
    fn of_inputs(inputs: u64) -> Self {
        Self::Uniform { bound: 1.0 / (inputs as f64).sqrt() }
    }
}

impl Architecture {
    /// Names and shapes of the parameters, sorted by name.
    ///
    /// Linear layers have `layer0.bias` of `[outputs]`, `layer0.weight` of `[outputs, inputs]`, `layer1.bias` and so on.
    /// Convolutions have `convolution0.bias` of `[filters]`, `convolution0.weight` of `[filters, channels, kernel, kernel]`
    /// and so on. What is flattened between the two is channel after channel, so that the tensors mean the same to other
    /// libraries. A residual network has `stem.convolution.weight`, `stem.normalization.bias` and `.weight` of `[filters]`;
    /// for each block `stage0.block0.convolution0.weight`, `.convolution1.weight`, `.normalization0.bias` and so on, and
    /// where shapes change `.shortcut.weight`, `.shortcut_normalization.bias` and `.weight`; and `output.bias`,
    /// `output.weight`. A custom architecture lists its tensors.
    pub fn parameters(&self) -> Vec<ParameterShape> {
        self.parameter_list().into_iter().map(|Parameter { name, shape, .. }| (name, shape)).collect()
    }

    /// Scalars in all parameters, saturating.
    pub fn parameter_count(&self) -> u64 {
        let counts = self.parameter_list().into_iter().map(|parameter| parameter.count());
        counts.fold(0, u64::saturating_add)
    }

    /// All parameters, sorted by name.
    pub(super) fn parameter_list(&self) -> Vec<Parameter> {
        if let Self::Custom { tensors } = self {
            return tensors.iter().map(CustomTensor::parameter).collect();
        }
        let mut list = Vec::new();
        for (index, layer) in self.convolutions().iter().enumerate() {
            let inputs = layer.fan_in();
            list.push(convolution(format!("convolution{index}.weight"), layer));
            list.push(Parameter::new(
                format!("convolution{index}.bias"),
                vec![layer.filters.into()],
                Initial::of_inputs(inputs),
            ));
        }
        if let Some(stem) = self.stem() {
            list.push(convolution("stem.convolution.weight".to_owned(), &stem));
            list.extend(normalization("stem.normalization", stem.filters));
        }
        for block in self.residual_blocks() {
            let name = &block.name;
            for (index, layer) in [&block.first, &block.second].into_iter().enumerate() {
                list.push(convolution(format!("{name}.convolution{index}.weight"), layer));
                list.extend(normalization(&format!("{name}.normalization{index}"), layer.filters));
            }
            if let Some(shortcut) = &block.shortcut {
                list.push(convolution(format!("{name}.shortcut.weight"), shortcut));
                list.extend(normalization(&format!("{name}.shortcut_normalization"), shortcut.filters));
            }
        }
        for (index, layer) in self.layers().into_iter().enumerate() {
            let name = match self {
                Self::Residual { .. } => "output".to_owned(),
                _ => format!("layer{index}"),
            };
            list.extend(linear(&name, layer));
        }
        list.sort_by(|left, right| left.name.cmp(&right.name));
        list
    }
}

impl Parameter {
    pub(super) fn new(name: String, shape: Vec<u64>, initial: Initial) -> Self {
        Self { name, shape, initial }
    }

    /// Its values, saturating.
    pub(super) fn count(&self) -> u64 {
        self.shape.iter().copied().fold(1, u64::saturating_mul)
    }
}

/// Bias and weight of a linear layer.
fn linear(name: &str, LinearLayer { inputs, outputs }: LinearLayer) -> [Parameter; 2] {
    let (inputs, outputs) = (u64::from(inputs), u64::from(outputs));
    let initial = Initial::of_inputs(inputs);
    [
        Parameter::new(format!("{name}.bias"), vec![outputs], initial),
        Parameter::new(format!("{name}.weight"), vec![outputs, inputs], initial),
    ]
}

fn convolution(name: String, layer: &ConvolutionLayer) -> Parameter {
    let shape = [layer.filters, layer.input.channels, layer.kernel, layer.kernel].map(u64::from).to_vec();
    Parameter::new(name, shape, Initial::of_inputs(layer.fan_in()))
}

/// Bias and weight of a normalisation: at first it scales by one and adds nothing.
fn normalization(name: &str, channels: u32) -> [Parameter; 2] {
    [("bias", Initial::Constant(0.0)), ("weight", Initial::Constant(1.0))]
        .map(|(part, initial)| Parameter::new(format!("{name}.{part}"), vec![channels.into()], initial))
}
