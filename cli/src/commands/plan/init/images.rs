//! What a plan and a schema say of images.

use std::path::Path;

use fedledger_federation::{architecture::CONVOLUTIONS_MAX, data_description::ImageDescription};
use fedledger_participant::table::ImageInspection;

use super::{
    Model,
    text::{ADAM, batch, comment, padded},
};

/// Smallest side of images for filters of five by five pixels; smaller ones get three by three.
const LARGE_SIDE: u32 = 16;

/// Convolutions follow each other until no side is longer than this.
const SIDE_LEFT_MAX: u32 = 7;

/// Part of the images that is kept for testing where the files have none for that.
const TEST_FRACTION: &str = "0.2";

/// The section on data in a plan.
pub(super) fn data(description: &ImageDescription) -> String {
    let ImageDescription { height, width, channels, mean, deviation, classes, bad_rows_max } = description;
    format!(
        r#"[data]                         # what is done to images, at every site alike
kind = "images"
{}# rows of pixels
{}# pixels of a row
{}# values of a pixel: 1 for grey, 3 for colours
{}# of the values of all pixels of this site, from 0 to 1: subtracted from each,
{}# which is then divided by their deviation
{}# labels are whole numbers from 0 to below this: as many as any site has
{}# most images that a site may skip because their label is no class

"#,
        padded(&format!("height = {height}")),
        padded(&format!("width = {width}")),
        padded(&format!("channels = {channels}")),
        padded(&format!("mean = \"{}\"", mean.as_str())),
        padded(&format!("deviation = \"{}\"", deviation.as_str())),
        padded(&format!("classes = {classes}")),
        padded(&format!("bad_rows_max = {bad_rows_max}")),
    )
}

/// The model in a plan, where so many images are trained on. No layer is wider than a batch, unless there are more classes:
/// people look first at those that are.
pub(super) fn architecture(model: Model, description: &ImageDescription, images: u64) -> String {
    let ImageDescription { height, width, channels, classes, .. } = description;
    let shape = format!("channels = {channels}\nheight = {height}\nwidth = {width}\n");
    let features = format!("features = {}\n", description.value_count());
    let classes = match classes {
        2 => String::new(),
        classes => format!("{}# a logit for each\n", padded(&format!("classes = {classes}"))),
    };
    let batch = batch(images);
    let hidden = padded(&format!("hidden = [{batch}]"));
    match model {
        Model::LogisticRegression => {
            format!("kind = \"logistic_regression\"   # or \"convolutional\"\n{features}{classes}")
        }
        Model::MultilayerPerceptron => format!(
            "kind = \"multilayer_perceptron\" # or \"convolutional\"\n{features}{hidden}# units of each hidden layer\n{classes}"
        ),
        Model::Convolutional => {
            let (filters, kernel) = convolutions((*height).min(*width), batch);
            let (filters, kernel) =
                (padded(&format!("convolutions = [{filters}]")), padded(&format!("kernel = {kernel}")));
            format!(
                "kind = \"convolutional\"         # or \"residual\", which is slower and often better\n{shape}{filters}# filters of \
                 each convolution, each followed by pooling\n{kernel}# height and width of a filter\n{hidden}# units of each linear \
                 layer behind them\n{classes}"
            )
        }
        Model::Residual => {
            let widths = [batch / 4, batch / 2, batch].map(|width| width.max(1).to_string()).join(", ");
            let (widths, blocks) = (padded(&format!("widths = [{widths}]")), padded("blocks = 2"));
            format!(
                "kind = \"residual\"              # or \"convolutional\", which is faster\n{shape}{widths}# filters of each stage; every \
                 stage after the first halves height and width\n{blocks}# of two convolutions each, in every stage\n{classes}"
            )
        }
    }
}

/// The optimiser in a plan.
pub(super) fn optimizer() -> String {
    format!("kind = \"adam\"                  # or \"sgd\", \"adamw\"\nlearning_rate = \"0.001\"\n{ADAM}")
}

/// Filters of each convolution and their size, for images whose shorter side is this.
fn convolutions(side: u32, batch: u64) -> (String, u32) {
    let kernel: u32 = if side >= LARGE_SIDE { 5 } else { 3 };
    let (mut filters, mut side) = (Vec::new(), side);
    while filters.is_empty() || (side > SIDE_LEFT_MAX && filters.len() < CONVOLUTIONS_MAX) {
        filters.push(if filters.is_empty() { (batch / 2).max(1) } else { batch });
        side = side.saturating_sub(kernel.saturating_sub(1)) / 2;
    }
    (filters.iter().map(u64::to_string).collect::<Vec<_>>().join(", "), kernel)
}

/// The schema.
pub(super) fn schema(data: &Path, found: &ImageInspection) -> String {
    let split = if found.has_test_images {
        "# The images to test on are those of the files.\n".to_owned()
    } else {
        format!(
            "[split]                        # images that are kept for evaluation\nkind = \"test_fraction\"\nfraction = \
             \"{TEST_FRACTION}\"\nseed = 7\n"
        )
    };
    format!(
        r#"# What this site's files hold: the images in {data}. What is done to them stands in the plan. This file stays here.
# Arrays or files are called as MedMNIST and MNIST call theirs; if yours are called otherwise, name them:
# [images]
# train_images = "train_images"
# train_labels = "train_labels"
# test_images = "test_images"
# test_labels = "test_labels"

{split}"#,
        data = comment(&data.display().to_string()),
    )
}

#[cfg(test)]
mod tests {
    use fedledger_federation::{architecture::FEATURES_MAX, data_description::DataDescription, plan::Plan};
    use fedledger_participant::table::Schema;

    use super::{super::text::PlanDraft, *};

    fn found(side: u32, channels: u32, classes: u32) -> ImageInspection {
        let [mean, deviation] = ["0.25", "1"].map(|text| text.parse().unwrap());
        let description =
            ImageDescription { height: side, width: side, channels, mean, deviation, classes, bad_rows_max: 0 };
        ImageInspection { images: 500, has_test_images: classes == 2, description }
    }

    #[test]
    fn images_of_all_sizes_have_a_plan() {
        for (side, channels, classes, rows) in [(28, 1, 2, 500), (64, 3, 10, 9), (224, 3, 5, 70_000), (8, 1, 64, 500)] {
            let found = found(side, channels, classes);
            for model in [Model::LogisticRegression, Model::MultilayerPerceptron, Model::Convolutional, Model::Residual]
            {
                let draft = PlanDraft {
                    source: Path::new("scans\n.npz"),
                    name: "scans",
                    records: "images",
                    data: data(&found.description),
                    architecture: architecture(model, &found.description, rows),
                    optimizer: optimizer(),
                    rows,
                    round_duration_ms: 3_600_000,
                };
                let text = draft.text();
                let plan = toml::from_str::<Plan>(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
                let is_linear = matches!(model, Model::LogisticRegression | Model::MultilayerPerceptron);
                if is_linear && found.description.value_count() > FEATURES_MAX.into() {
                    assert!(plan.check().is_err(), "people are told to choose another model");
                    continue;
                }
                assert_eq!(plan.check(), Ok(()), "{text}");
                assert_eq!(plan.architecture.classes(), classes);
                assert_eq!(plan.data, Some(DataDescription::Images(found.description.clone())));
                let (training, widest) = (plan.training.unwrap(), plan.architecture.widest_layer().unwrap());
                assert!(widest.units <= u64::from(training.batch_size.max(classes)), "{text}");
                assert!(training.steps * u64::from(training.batch_size) >= 2 * rows);
            }
            let schema = Schema::from_toml(&schema(Path::new("scans\r.npz"), &found)).unwrap();
            assert_eq!(schema.split == fedledger_participant::table::Split::None, found.has_test_images);
        }
    }

    #[test]
    fn convolutions_go_on_until_little_is_left() {
        assert_eq!(convolutions(28, 32), ("16, 32".to_owned(), 5));
        assert_eq!(convolutions(224, 32), ("16, 32, 32, 32, 32".to_owned(), 5));
        assert_eq!(convolutions(8, 4), ("2".to_owned(), 3));
        assert_eq!(convolutions(0, 4), ("2".to_owned(), 3));
    }
}
