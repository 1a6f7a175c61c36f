use candle_core::{DType, Device, Var};

use super::*;
use crate::training::loss::cross_entropy;

/// Values without a pattern, between -1 and 1.
fn values(count: usize, seed: u32) -> Vec<f32> {
    let value = |index: u32| (index.wrapping_add(seed).wrapping_mul(2_654_435_761) >> 8) as f32 / 8_388_608.0 - 1.0;
    (0..count as u32).map(value).collect()
}

fn convolutional(channels: u32, classes: Option<u32>, kernel: u32) -> Architecture {
    let (height, width, convolutions, hidden) = (16, 19, vec![5, 9], vec![7]);
    Architecture::Convolutional { channels, height, width, convolutions, kernel, hidden, classes }
}

/// Square ones: the numeric library's gradient of a convolution with a stride wants as many rows as columns.
fn residual(channels: u32, classes: Option<u32>) -> Architecture {
    Architecture::Residual { channels, height: 7, width: 7, widths: vec![4, 6, 6], blocks: 2, classes }
}

fn architectures() -> Vec<Architecture> {
    vec![
        Architecture::MultilayerPerceptron { features: 6, hidden: vec![5, 4], classes: Some(3) },
        convolutional(1, Some(4), 5),
        convolutional(1, Some(4), 2),
        convolutional(3, None, 3),
        residual(1, Some(4)),
        residual(3, None),
    ]
}

fn network(architecture: &Architecture) -> Network {
    let parameters = architecture.initial_weights(5).unwrap().into_iter().map(|(name, shape, mut initial)| {
        // Away from the ones and zeros of normalisations, which would hide mistakes.
        if name.contains("normalization") {
            let change = values(initial.len(), 77);
            initial.iter_mut().zip(change).for_each(|(value, change)| *value += 0.5 * change);
        }
        Parameter::new(initial, &shape).unwrap()
    });
    Network::of_parameters(architecture, parameters.collect()).unwrap()
}

/// What the numeric library's own operations make of the same parameters, in double precision.
mod reference {
    use fedledger_federation::architecture::ConvolutionLayer;

    use super::*;

    pub(super) struct Reference<'a> {
        pub(super) architecture: &'a Architecture,
        pub(super) variables: BTreeMap<String, Var>,
    }

    impl Reference<'_> {
        fn get(&self, name: &str) -> &Tensor {
            &self.variables[name]
        }

        pub(super) fn forward(&self, features: &Tensor) -> Tensor {
            let image = self.architecture.image();
            let shaped = |features: &Tensor| {
                let image = image.unwrap();
                let sides = [image.channels, image.height, image.width].map(|side| side as usize);
                features.reshape((features.dim(0).unwrap(), sides[0], sides[1], sides[2])).unwrap()
            };
            match self.architecture {
                Architecture::Convolutional { .. } => {
                    let mut images = shaped(features);
                    for index in 0..self.architecture.convolutions().len() {
                        let bias = self.get(&format!("convolution{index}.bias")).reshape((1, (), 1, 1)).unwrap();
                        let weight = self.get(&format!("convolution{index}.weight"));
                        let convolved = images.conv2d(weight, 0, 1, 1, 1).unwrap().broadcast_add(&bias).unwrap();
                        images = pooled(&convolved.relu().unwrap());
                    }
                    self.linear(&images.flatten_from(1).unwrap())
                }
                Architecture::Residual { .. } => self.residual(&shaped(features)),
                _ => self.linear(features),
            }
        }

        fn linear(&self, features: &Tensor) -> Tensor {
            let mut values = features.clone();
            let count = self.architecture.layers().len();
            for index in 0..count {
                values = self.layer(&values, &format!("layer{index}"));
                values = if index + 1 < count { values.relu().unwrap() } else { values };
            }
            values
        }

        fn layer(&self, values: &Tensor, name: &str) -> Tensor {
            let weight = self.get(&format!("{name}.weight")).t().unwrap();
            values.matmul(&weight).unwrap().broadcast_add(self.get(&format!("{name}.bias"))).unwrap()
        }

        fn normalized(
            &self,
            images: &Tensor,
            layer: &ConvolutionLayer,
            convolution: &str,
            normalization: &str,
        ) -> Tensor {
            let weight = self.get(&format!("{convolution}.weight"));
            let convolved = images.conv2d(weight, layer.padding as usize, layer.stride as usize, 1, 1).unwrap();
            let (rows, channels, height, width) = convolved.dims4().unwrap();
            let groups = fedledger_federation::architecture::groups(channels as u32) as usize;
            let grouped = convolved.reshape((rows, groups, ())).unwrap();
            let centred = grouped.broadcast_sub(&grouped.mean_keepdim(2).unwrap()).unwrap();
            let variance = (centred.sqr().unwrap().mean_keepdim(2).unwrap() + 1e-5).unwrap();
            let normalized = centred.broadcast_div(&variance.sqrt().unwrap()).unwrap();
            let normalized = normalized.reshape((rows, channels, height, width)).unwrap();
            let shaped = |part: &str| self.get(&format!("{normalization}.{part}")).reshape((1, (), 1, 1)).unwrap();
            normalized.broadcast_mul(&shaped("weight")).unwrap().broadcast_add(&shaped("bias")).unwrap()
        }

        fn residual(&self, images: &Tensor) -> Tensor {
            let stem = self.architecture.stem().unwrap();
            let mut images = self.normalized(images, &stem, "stem.convolution", "stem.normalization").relu().unwrap();
            for block in self.architecture.residual_blocks() {
                let part = |images: &Tensor, layer: &ConvolutionLayer, index: usize| {
                    let [convolution, normalization] =
                        ["convolution", "normalization"].map(|kind| format!("{}.{kind}{index}", block.name));
                    self.normalized(images, layer, &convolution, &normalization)
                };
                let hidden = part(&images, &block.first, 0).relu().unwrap();
                let change = part(&hidden, &block.second, 1);
                let kept = match &block.shortcut {
                    Some(layer) => {
                        let [weight, normalization] =
                            ["shortcut", "shortcut_normalization"].map(|kind| format!("{}.{kind}", block.name));
                        self.normalized(&images, layer, &weight, &normalization)
                    }
                    None => images,
                };
                images = (change + kept).unwrap().relu().unwrap();
            }
            self.layer(&images.mean((2, 3)).unwrap(), "output")
        }
    }

    /// 2 x 2 max pooling that has a gradient in double precision, of the part that is pooled.
    fn pooled(images: &Tensor) -> Tensor {
        let (rows, channels, height, width) = images.dims4().unwrap();
        let (height, width) = (height / 2, width / 2);
        let even = images.narrow(2, 0, 2 * height).unwrap().narrow(3, 0, 2 * width).unwrap();
        let windows = even.reshape((rows, channels, height, 2, width, 2)).unwrap();
        windows.max(5).unwrap().max(3).unwrap()
    }
}

fn double(tensor: &Tensor) -> Tensor {
    tensor.to_dtype(DType::F64).unwrap()
}

fn flat(tensor: &Tensor) -> Vec<f64> {
    double(tensor).flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn logits_and_gradients_are_those_of_the_numeric_library() {
    for architecture in architectures() {
        let (rows, inputs) = (3, architecture.inputs().unwrap() as usize);
        let network = network(&architecture);
        let features = Tensor::from_vec(values(rows * inputs, 3), (rows, inputs), &Device::Cpu).unwrap();
        let names = architecture.parameters().into_iter().map(|(name, _)| name);
        let variables = names
            .zip(network.parameters())
            .map(|(name, parameter)| (name, Var::from_tensor(&double(parameter.tensor())).unwrap()));
        let reference = reference::Reference { architecture: &architecture, variables: variables.collect() };
        let expected = reference.forward(&double(&features));
        let found = network.forward(&features).unwrap();
        assert_eq!(found.dims(), [rows, architecture.outputs() as usize]);
        for (found, expected) in flat(&found).into_iter().zip(flat(&expected)) {
            assert!((found - expected).abs() < 1e-4, "{architecture:?}: {found} is not {expected}");
        }

        // Any scalar function of the logits will do: their squares.
        found.sqr().unwrap().sum_all().unwrap().backward().unwrap();
        let gradients = expected.sqr().unwrap().sum_all().unwrap().backward().unwrap();
        for ((name, variable), parameter) in reference.variables.iter().zip(network.parameters()) {
            let expected = flat(gradients.get(variable).unwrap());
            let scale = expected.iter().fold(1.0f64, |most, value| most.max(value.abs()));
            let found = parameter.gradient().sums(parameter.count()).clone();
            for (index, (found, expected)) in found.into_iter().zip(expected).enumerate() {
                let difference = (f64::from(found) - expected).abs();
                assert!(difference < 2e-4 * scale, "{architecture:?}, {name}[{index}]: {found} is not {expected}");
            }
        }
    }
}

#[test]
fn gradients_are_the_differences_of_the_loss() {
    let (channels, height, width, widths) = (2, 6, 9, vec![4, 8]);
    let oblong = Architecture::Residual { channels, height, width, widths, blocks: 1, classes: Some(3) };
    let of_few_layers = architectures().into_iter().filter(|of| !matches!(of, Architecture::Residual { .. }));
    for architecture in of_few_layers.chain([oblong]) {
        let (rows, inputs) = (4, architecture.inputs().unwrap() as usize);
        let network = network(&architecture);
        let features = Tensor::from_vec(values(rows * inputs, 9), (rows, inputs), &Device::Cpu).unwrap();
        let labels: Vec<f32> = (0..rows).map(|row| (row as u32 % architecture.classes()) as f32).collect();
        let labels = Tensor::from_vec(labels, rows, &Device::Cpu).unwrap();
        let loss = || cross_entropy(&network.forward(&features).unwrap(), &labels, rows).unwrap();
        loss().backward().unwrap();
        let (mut near, mut all) = (0, 0);
        for parameter in network.parameters() {
            let gradient = parameter.gradient().sums(parameter.count()).clone();
            let start = parameter.with_values(<[f32]>::to_vec).unwrap();
            let variable = Var::from_tensor(parameter.tensor()).unwrap();
            for index in (0..start.len()).step_by(start.len() / 5 + 1) {
                let step = 1e-3f32;
                let shifted = [step, -step].map(|step| {
                    let mut values = start.clone();
                    values[index] += step;
                    variable.set(&Tensor::from_vec(values, parameter.tensor().shape(), &Device::Cpu).unwrap()).unwrap();
                    f64::from(loss().to_scalar::<f32>().unwrap())
                });
                let expected = (shifted[0] - shifted[1]) / (2.0 * f64::from(step));
                near += usize::from((f64::from(gradient[index]) - expected).abs() < 2e-3 + 0.02 * expected.abs());
                all += 1;
            }
            variable.set(&Tensor::from_vec(start, parameter.tensor().shape(), &Device::Cpu).unwrap()).unwrap();
        }
        // A unit that is switched on or off within a step makes its difference meaningless.
        assert!(near * 100 >= all * 97, "{architecture:?}: {near} of {all} gradients are near the differences");
    }
}

#[test]
fn a_pass_has_few_activations_and_at_least_one_image() {
    assert_eq!(rows_per_pass(&Architecture::logistic_regression(13)), 65_535 / 13);
    let lenet = Architecture::Convolutional {
        channels: 1,
        height: 28,
        width: 28,
        convolutions: vec![16, 32],
        kernel: 5,
        hidden: vec![128],
        classes: Some(10),
    };
    assert_eq!(rows_per_pass(&lenet), 65_535 / (12 * 12 * 16));
    let large =
        Architecture::Residual { channels: 1, height: 512, width: 512, widths: vec![8], blocks: 1, classes: None };
    assert_eq!(rows_per_pass(&large), 1);
}
