mod pytorch;

use candle_core::{DType, Device, Var};

use super::*;
use crate::training::{library::LibraryNetwork, loss::cross_entropy};

/// Values without a pattern, between -1 and 1.
fn values(count: usize, seed: u32) -> Vec<f32> {
    let value = |index: u32| (index.wrapping_add(seed).wrapping_mul(2_654_435_761) >> 8) as f32 / 8_388_608.0 - 1.0;
    (0..count as u32).map(value).collect()
}

fn convolutional(channels: u32, classes: Option<u32>, kernel: u32) -> Architecture {
    let (height, width, convolutions, hidden) = (16, 19, vec![5, 9], vec![7]);
    Architecture::Convolutional { channels, height, width, convolutions, kernel, hidden, classes }
}

fn residual(channels: u32, [height, width]: [u32; 2], classes: Option<u32>) -> Architecture {
    Architecture::Residual { channels, height, width, widths: vec![4, 6, 6], blocks: 2, classes }
}

fn architectures() -> Vec<Architecture> {
    vec![
        Architecture::MultilayerPerceptron { features: 6, hidden: vec![5, 4], classes: Some(3) },
        convolutional(1, Some(4), 5),
        convolutional(1, Some(4), 2),
        convolutional(3, None, 3),
        // A stride of two leaves over a row, a column, both or neither, in the first, in the second or in both stages.
        residual(1, [7, 7], Some(4)),
        residual(3, [8, 8], None),
        residual(1, [7, 8], Some(4)),
        residual(2, [10, 5], None),
        residual(1, [6, 9], Some(4)),
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
        let variables: Vec<_> = variables.collect();
        let reference = LibraryNetwork::new(&architecture, variables.clone());
        let expected = reference.forward(&double(&features)).unwrap();
        let found = network.forward(&features).unwrap();
        assert_eq!(found.dims(), [rows, architecture.outputs() as usize]);
        for (found, expected) in flat(&found).into_iter().zip(flat(&expected)) {
            assert!((found - expected).abs() < 1e-4, "{architecture:?}: {found} is not {expected}");
        }

        // Any scalar function of the logits will do: their squares.
        found.sqr().unwrap().sum_all().unwrap().backward().unwrap();
        let gradients = expected.sqr().unwrap().sum_all().unwrap().backward().unwrap();
        for ((name, variable), parameter) in variables.iter().zip(network.parameters()) {
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
fn a_device_adds_the_gradients_that_our_kernels_add() {
    for architecture in architectures() {
        let (rows, inputs) = (4, architecture.inputs().unwrap() as usize);
        let (own, other) = (network(&architecture), network(&architecture));
        let features = Tensor::from_vec(values(rows * inputs, 9), (rows, inputs), &Device::Cpu).unwrap();
        let labels: Vec<f32> = (0..rows).map(|row| (row as u32 % architecture.classes()) as f32).collect();
        let labels = Tensor::from_vec(labels, rows, &Device::Cpu).unwrap();
        let loss = cross_entropy(&own.forward(&features).unwrap(), &labels, 2 * rows).unwrap();
        loss.backward().unwrap();

        let device = LibraryNetwork::copy_of(&architecture, &other, &Device::Cpu).unwrap();
        let found = device.add_gradients(&other, &features, &labels, 2 * rows).unwrap();
        assert!((found - loss.to_scalar::<f32>().unwrap()).abs() < 1e-5, "{architecture:?}");
        for (own, other) in own.parameters().iter().zip(other.parameters()) {
            let [own, other] = [own, other].map(|parameter| parameter.gradient().sums(parameter.count()).clone());
            assert!(own.iter().any(|value| *value != 0.0), "{architecture:?}: nothing was added");
            for (own, other) in own.into_iter().zip(other) {
                assert!((own - other).abs() < 1e-4 * own.abs().max(1.0), "{architecture:?}: {other} is not {own}");
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
