use super::*;

fn perceptron(features: u32, hidden: &[u32]) -> Architecture {
    Architecture::multilayer_perceptron(features, hidden)
}

/// LeNet-like, for 28 x 28 images of ten classes.
fn convolutional(convolutions: &[u32], kernel: u32) -> Architecture {
    let (channels, height, width, hidden) = (1, 28, 28, vec![128]);
    Architecture::Convolutional {
        channels,
        height,
        width,
        convolutions: convolutions.to_vec(),
        kernel,
        hidden,
        classes: Some(10),
    }
}

fn residual(widths: &[u32], blocks: u32) -> Architecture {
    Architecture::Residual { channels: 3, height: 28, width: 27, widths: widths.to_vec(), blocks, classes: None }
}

fn listed(architecture: &Architecture) -> Vec<(String, Vec<u64>)> {
    let listed = architecture.parameters();
    assert!(listed.is_sorted(), "parameters are in the order of their names");
    listed
}

#[test]
fn parameters_are_listed_by_name() {
    let expected: [(&str, &[u64]); 6] = [
        ("layer0.bias", &[32]),
        ("layer0.weight", &[32, 13]),
        ("layer1.bias", &[8]),
        ("layer1.weight", &[8, 32]),
        ("layer2.bias", &[1]),
        ("layer2.weight", &[1, 8]),
    ];
    assert_eq!(listed(&perceptron(13, &[32, 8])), expected.map(|(name, shape)| (name.to_owned(), shape.to_vec())));
    assert_eq!(listed(&perceptron(1, &[1; HIDDEN_LAYERS_MAX])).len(), 2 * (HIDDEN_LAYERS_MAX + 1));
}

#[test]
fn convolutions_shrink_the_image_and_linear_layers_follow() {
    let expected: [(&str, &[u64]); 8] = [
        ("convolution0.bias", &[16]),
        ("convolution0.weight", &[16, 1, 5, 5]),
        ("convolution1.bias", &[32]),
        ("convolution1.weight", &[32, 16, 5, 5]),
        ("layer0.bias", &[128]),
        // 28 - 4 = 24, halved 12; 12 - 4 = 8, halved 4.
        ("layer0.weight", &[128, 32 * 4 * 4]),
        ("layer1.bias", &[10]),
        ("layer1.weight", &[10, 128]),
    ];
    let architecture = convolutional(&[16, 32], 5);
    assert_eq!(listed(&architecture), expected.map(|(name, shape)| (name.to_owned(), shape.to_vec())));
    assert_eq!(architecture.parameter_count(), 416 + 12_832 + 65_664 + 1_290);
    assert_eq!((architecture.inputs(), architecture.classes(), architecture.outputs()), (Some(784), 10, 10));
}

#[test]
fn residual_blocks_have_a_shortcut_where_shapes_change() {
    let architecture = residual(&[16, 32], 2);
    let blocks = architecture.residual_blocks();
    let names: Vec<_> = blocks.iter().map(|block| block.name.as_str()).collect();
    assert_eq!(names, ["stage0.block0", "stage0.block1", "stage1.block0", "stage1.block1"]);
    let shape = |channels, height, width| ImageShape { channels, height, width };
    let outputs: Vec<_> = blocks.iter().map(|block| block.second.output()).collect();
    let [first, second] = [shape(16, 28, 27), shape(32, 14, 14)];
    assert_eq!(outputs, [first, first, second, second]);
    let shortcuts: Vec<_> = blocks.iter().map(|block| block.shortcut.map(|layer| layer.output())).collect();
    assert_eq!(shortcuts, [None, None, Some(second), None]);
    let listed = listed(&architecture);
    let of = |wanted: &str| listed.iter().find(|(name, _)| name == wanted).map(|(_, shape)| shape.as_slice());
    assert_eq!(of("stem.convolution.weight"), Some(&[16, 3, 3, 3][..]));
    assert_eq!(of("stage1.block0.convolution0.weight"), Some(&[32, 16, 3, 3][..]));
    assert_eq!(of("stage1.block0.shortcut.weight"), Some(&[32, 16, 1, 1][..]));
    assert_eq!(of("stage1.block0.shortcut_normalization.weight"), Some(&[32][..]));
    assert_eq!(of("output.weight"), Some(&[1, 32][..]));
    assert_eq!((architecture.classes(), architecture.outputs()), (2, 1));
    // Stem 3, blocks 6 each, one shortcut 3, output 2.
    assert_eq!(listed.len(), 3 + 4 * 6 + 3 + 2);
}

#[test]
fn channels_are_normalised_in_up_to_eight_groups() {
    assert_eq!([16, 8, 12, 6, 7].map(layers::groups), [8, 8, 4, 2, 1]);
}

#[test]
fn parameters_are_counted() {
    assert_eq!(Architecture::logistic_regression(13).parameter_count(), 14);
    assert_eq!(perceptron(13, &[32]).parameter_count(), 13 * 32 + 32 + 32 + 1);
    assert_eq!(perceptron(u32::MAX, &[u32::MAX, u32::MAX]).parameter_count(), u64::MAX);
    let classes = Architecture::LogisticRegression { features: 13, classes: Some(3) };
    assert_eq!(classes.parameter_count(), 3 * 14);
}

#[test]
fn every_bound_is_checked() {
    use ArchitectureError::{Classes, Features, HiddenLayers, LayerWidth, TooManyParameters};

    let logistic = |features| Architecture::logistic_regression(features).validate();
    assert_eq!(logistic(0), Err(Features { found: 0 }));
    assert_eq!(logistic(FEATURES_MAX), Ok(()));
    assert_eq!(logistic(FEATURES_MAX + 1), Err(Features { found: FEATURES_MAX + 1 }));
    assert_eq!(perceptron(1, &[]).validate(), Err(HiddenLayers { found: 0 }));
    assert_eq!(perceptron(1, &[1; 9]).validate(), Err(HiddenLayers { found: 9 }));
    assert_eq!(perceptron(1, &[4, 0]).validate(), Err(LayerWidth { layer: 1, found: 0 }));
    let wide = perceptron(FEATURES_MAX, &[LAYER_WIDTH_MAX]);
    assert_eq!(wide.validate(), Err(TooManyParameters { found: wide.parameter_count() }));
    let classes = |classes| Architecture::LogisticRegression { features: 1, classes: Some(classes) }.validate();
    assert_eq!((classes(2), classes(CLASSES_MAX)), (Ok(()), Ok(())));
    assert_eq!(classes(1), Err(Classes { found: 1 }));
    assert_eq!(classes(CLASSES_MAX + 1), Err(Classes { found: CLASSES_MAX + 1 }));
}

#[test]
fn bounds_of_images_are_checked() {
    use ArchitectureError::{Activations, Blocks, Convolutions, Filters, Image, ImageUsedUp, Kernel};

    assert_eq!(convolutional(&[16, 32], 5).validate(), Ok(()));
    assert_eq!(convolutional(&[], 5).validate(), Err(Convolutions { found: 0 }));
    assert_eq!(convolutional(&[1; 9], 1).validate(), Err(Convolutions { found: 9 }));
    assert_eq!(convolutional(&[1, 0], 5).validate(), Err(Filters { layer: 1, found: 0 }));
    assert_eq!(convolutional(&[1], 0).validate(), Err(Kernel { found: 0 }));
    assert_eq!(convolutional(&[1], KERNEL_MAX + 1).validate(), Err(Kernel { found: KERNEL_MAX + 1 }));
    assert_eq!(convolutional(&[1, 1, 1], 5).validate(), Err(ImageUsedUp { layer: 2 }));
    assert_eq!(residual(&[16, 32, 64], 2).validate(), Ok(()));
    assert_eq!(residual(&[16; 9], 2).validate(), Err(Convolutions { found: 9 }));
    assert_eq!(residual(&[16], 0).validate(), Err(Blocks { found: 0 }));
    assert_eq!(residual(&[16], u32::MAX).validate(), Err(Blocks { found: u32::MAX }));
    assert!(matches!(residual(&[FILTERS_MAX], 8).validate(), Err(Activations { found }) if found > ACTIVATIONS_MAX));
    for (channels, height, width) in [(0, 1, 1), (1, 0, 1), (65, 1, 1), (1, 1025, 1), (2, 1024, 1024), (1, u32::MAX, 2)]
    {
        let refused = Architecture::Residual { channels, height, width, widths: vec![1], blocks: 1, classes: None };
        assert_eq!(refused.validate(), Err(Image { channels, height, width }));
    }
}

#[test]
fn an_architecture_has_one_encoding() {
    let several = [
        Architecture::logistic_regression(13),
        perceptron(13, &[1024, 7]),
        convolutional(&[16, 32], 5),
        residual(&[16, 32], 2),
    ];
    for architecture in several {
        let bytes = fedledger_ledger::codec::encode(&architecture);
        assert_eq!(fedledger_ledger::codec::decode::<Architecture>(&bytes, 1024), Ok(architecture.clone()));
        let json = serde_json::to_string(&architecture).unwrap();
        assert_eq!(serde_json::from_str::<Architecture>(&json).unwrap(), architecture);
    }
    let two_classes = serde_json::to_string(&Architecture::logistic_regression(13)).unwrap();
    assert_eq!(two_classes, r#"{"kind":"logistic_regression","features":13}"#, "existing plans keep their ids");
    let unknown = r#"{"kind":"logistic_regression","features":13,"hidden":[4]}"#;
    assert!(serde_json::from_str::<Architecture>(unknown).is_err(), "a field that has no meaning was ignored");
}

#[test]
fn what_is_left_out_of_an_image_network_is_the_usual() {
    let read = |json: &str| serde_json::from_str::<Architecture>(json).unwrap();
    let lenet = read(r#"{"kind":"convolutional","channels":1,"height":28,"width":28,"classes":10}"#);
    assert_eq!(lenet, convolutional(&[16, 32], 5));
    let resnet = read(r#"{"kind":"residual","channels":3,"height":28,"width":27}"#);
    assert_eq!(resnet, residual(&[16, 32, 64], 2));
}
