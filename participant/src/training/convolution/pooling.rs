//! Rectified linear units and 2 x 2 max pooling, together.

/// Stands for no winner: none of the four values was above zero.
const NONE: u8 = 4;

/// Writes for each 2 x 2 places of `[out_height, out_width, filters]` the largest value of each filter, at least 0, and
/// which of the four it was: the first of equal ones. A last odd row or column is left out.
pub(super) fn pool(values: &[f32], width: usize, filters: usize, pooled: &mut [f32], winners: &mut [u8]) {
    let row = width * filters;
    let pooled_row = ((width / 2) * filters).max(1);
    let targets = pooled.chunks_exact_mut(pooled_row).zip(winners.chunks_exact_mut(pooled_row));
    for (lines, (pooled, winners)) in values.chunks_exact((2 * row).max(1)).zip(targets) {
        let (upper, lower) = lines.split_at(row);
        let pairs = upper.chunks_exact(2 * filters).zip(lower.chunks_exact(2 * filters));
        let targets = pooled.chunks_exact_mut(filters).zip(winners.chunks_exact_mut(filters));
        for ((upper, lower), (pooled, winners)) in pairs.zip(targets) {
            let (first, second) = upper.split_at(filters);
            let (third, fourth) = lower.split_at(filters);
            let values = first.iter().zip(second).zip(third).zip(fourth);
            for ((((first, second), third), fourth), (pooled, winner)) in values.zip(pooled.iter_mut().zip(winners)) {
                let (mut largest, mut which) = (0.0f32, NONE);
                for (index, &value) in [*first, *second, *third, *fourth].iter().enumerate() {
                    let larger = value > largest;
                    largest = if larger { value } else { largest };
                    which = if larger { index as u8 } else { which };
                }
                (*pooled, *winner) = (largest, which);
            }
        }
    }
}

/// Gives each gradient to the place that won, and 0 to the three others. Places that were left out are left as they are.
pub(super) fn unpool(pooled: &[f32], winners: &[u8], width: usize, filters: usize, gradient: &mut [f32]) {
    let row = width * filters;
    let pooled_row = ((width / 2) * filters).max(1);
    let sources = pooled.chunks_exact(pooled_row).zip(winners.chunks_exact(pooled_row));
    for (lines, (pooled, winners)) in gradient.chunks_exact_mut((2 * row).max(1)).zip(sources) {
        let (upper, lower) = lines.split_at_mut(row);
        let pairs = upper.chunks_exact_mut(2 * filters).zip(lower.chunks_exact_mut(2 * filters));
        let sources = pooled.chunks_exact(filters).zip(winners.chunks_exact(filters));
        for ((upper, lower), (pooled, winners)) in pairs.zip(sources) {
            let places = upper.chunks_exact_mut(filters).chain(lower.chunks_exact_mut(filters));
            for (place, gradient) in places.enumerate() {
                for ((gradient, pooled), winner) in gradient.iter_mut().zip(pooled).zip(winners) {
                    *gradient = if usize::from(*winner) == place { *pooled } else { 0.0 };
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_of_four_wins_and_gets_the_gradient() {
        // Three rows of three places with two filters: the last row and column are left out.
        #[rustfmt::skip]
        let values = [
            1.0, -1.0, 2.0, -2.0, 9.0, 9.0,
            2.0, -3.0, 0.5, -4.0, 9.0, 9.0,
            9.0, 9.0, 9.0, 9.0, 9.0, 9.0,
        ];
        let (mut pooled, mut winners) = ([0.0; 2], [0; 2]);
        pool(&values, 3, 2, &mut pooled, &mut winners);
        assert_eq!((pooled, winners), ([2.0, 0.0], [1, NONE]), "of equal ones the first, of none above zero no one");
        let mut gradient = [7.0; 18];
        unpool(&[5.0, 6.0], &winners, 3, 2, &mut gradient);
        #[rustfmt::skip]
        let expected = [
            0.0, 0.0, 5.0, 0.0, 7.0, 7.0,
            0.0, 0.0, 0.0, 0.0, 7.0, 7.0,
            7.0, 7.0, 7.0, 7.0, 7.0, 7.0,
        ];
        assert_eq!(gradient, expected);
    }
}
