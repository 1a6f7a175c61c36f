//! Figures that PyTorch 1.13 gives in double precision, with `conv2d`, `max_pool2d`, `group_norm`, `linear` and
//! `cross_entropy`, from the weights and rows that are made here.

use super::*;

/// Two rows of three classes.
struct Expected {
    logits: [f64; 6],
    loss: f64,
    /// Euclidean norm of each parameter's gradient, in the order of the names.
    gradient_norms: &'static [f64],
}

fn check(architecture: &Architecture, expected: &Expected) {
    let parameters = architecture.parameters().into_iter().enumerate().map(|(index, (_, shape))| {
        let count = shape.iter().product::<u64>() as usize;
        let halves = values(count, 1000 * index as u32).into_iter().map(|value| value / 2.0);
        Parameter::new(halves.collect(), &shape).unwrap()
    });
    let network = Network::of_parameters(architecture, parameters.collect()).unwrap();
    let inputs = architecture.inputs().unwrap() as usize;
    let features = Tensor::from_vec(values(2 * inputs, 7), (2, inputs), &Device::Cpu).unwrap();
    let labels = Tensor::new(&[0.0f32, 2.0], &Device::Cpu).unwrap();
    let logits = flat(&network.forward(&features).unwrap());
    let loss = network.add_gradients(&features, &labels, 2).unwrap();
    for (found, expected) in logits.iter().zip(expected.logits) {
        assert!((found - expected).abs() < 2e-5, "{found} is not {expected}");
    }
    assert!((f64::from(loss) - expected.loss).abs() < 2e-6, "{loss} is not {}", expected.loss);
    assert_eq!(network.parameters().len(), expected.gradient_norms.len());
    for (parameter, expected) in network.parameters().iter().zip(expected.gradient_norms) {
        let gradient = parameter.gradient().sums(parameter.count()).clone();
        let norm = gradient.into_iter().map(|value| f64::from(value).powi(2)).sum::<f64>().sqrt();
        assert!((norm - expected).abs() < 2e-5, "{norm} is not {expected}");
    }
}

#[test]
fn a_convolutional_network_gives_what_pytorch_gives() {
    // A last odd row is left out in pooling.
    let (channels, height, width, convolutions, hidden) = (2, 9, 8, vec![3], vec![4]);
    let architecture =
        Architecture::Convolutional { channels, height, width, convolutions, kernel: 3, hidden, classes: Some(3) };
    let expected = Expected {
        logits: [-0.952502, 1.002578, -0.030577, -0.95244, 1.002373, -0.030507],
        loss: 1.897779,
        gradient_norms: &[0.104841, 1.02324, 0.336752, 2.689719, 0.824097, 1.779722],
    };
    check(&architecture, &expected);
}

#[test]
fn a_residual_network_gives_what_pytorch_gives() {
    let (channels, height, width, widths) = (2, 6, 5, vec![4, 6]);
    let architecture = Architecture::Residual { channels, height, width, widths, blocks: 1, classes: Some(3) };
    let expected = Expected {
        logits: [-0.584323, 0.129454, 0.030815, -0.596884, 0.135699, 0.057041],
        loss: 1.271868,
        #[rustfmt::skip]
        gradient_norms: &[
            0.525704, 0.348437, 0.066141, 0.043334, 0.048286, 0.047243, 0.095941, 0.056693, 0.029669, 0.139377,
            0.013693, 0.025293, 0.268354, 0.124965, 0.139928, 0.268354, 0.132523, 0.048367, 0.043088, 0.057385,
        ],
    };
    check(&architecture, &expected);
}
