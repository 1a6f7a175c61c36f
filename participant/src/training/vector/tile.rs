//! What is done in registers.

use pulp::Simd;

/// Rows of a tile.
pub(in crate::training) const TILE_ROWS: usize = 4;

/// Adds to each of `R` rows of sums the products of one row of `left` with the rows of `right`, a panel of `V` vectors.
/// Nothing is added if a row of `left` is shorter than the panel.
#[inline(always)]
pub(in crate::training) fn add_rows<S: Simd, const R: usize, const V: usize>(
    simd: S,
    sums: &mut [[S::f32s; V]; R],
    left: [&[f32]; R],
    right: &[f32],
) {
    let (right, _) = S::as_simd_f32s(right).0.as_chunks::<V>();
    // Rows of exactly the panel's length need no check of an index below.
    let mut rows = [&[][..]; R];
    for (row, left) in rows.iter_mut().zip(left) {
        match left.get(..right.len()) {
            Some(left) => *row = left,
            None => return,
        }
    }
    let mut accumulators = *sums;
    for (index, right) in right.iter().enumerate() {
        for (sums, row) in accumulators.iter_mut().zip(rows) {
            let factor = simd.splat_f32s(row.get(index).copied().unwrap_or_default());
            for (sum, right) in sums.iter_mut().zip(right) {
                *sum = simd.mul_add_f32s(factor, *right, *sum);
            }
        }
    }
    *sums = accumulators;
}

/// The same where `left` lies by columns: `R` factors stand side by side, and the next ones `stride` values further.
#[inline(always)]
pub(in crate::training) fn add_columns<S: Simd, const R: usize, const V: usize>(
    simd: S,
    sums: &mut [[S::f32s; V]; R],
    left: &[f32],
    stride: usize,
    right: &[f32],
) {
    let (right, _) = S::as_simd_f32s(right).0.as_chunks::<V>();
    let mut accumulators = *sums;
    // Factors may overlap: the stride can be less than their number.
    for (left, right) in (0..).step_by(stride.max(1)).map_while(|start| left.get(start..)).zip(right) {
        let Some(factors) = left.first_chunk::<R>() else { break };
        for (sums, factor) in accumulators.iter_mut().zip(factors) {
            let factor = simd.splat_f32s(*factor);
            for (sum, right) in sums.iter_mut().zip(right) {
                *sum = simd.mul_add_f32s(factor, *right, *sum);
            }
        }
    }
    *sums = accumulators;
}

/// `V` vectors of the values, filled up with zeros.
#[inline(always)]
pub(in crate::training) fn load<S: Simd, const V: usize>(simd: S, values: &[f32]) -> [S::f32s; V] {
    let (whole, rest) = S::as_simd_f32s(values);
    let mut vectors = [simd.splat_f32s(0.0); V];
    for (vector, value) in vectors.iter_mut().zip(whole) {
        *vector = *value;
    }
    if let Some(vector) = vectors.get_mut(whole.len()).filter(|_| !rest.is_empty()) {
        *vector = simd.partial_load_f32s(rest);
    }
    vectors
}

/// Writes as many of the vectors' values as there is room for.
#[inline(always)]
pub(in crate::training) fn store<S: Simd, const V: usize>(simd: S, target: &mut [f32], vectors: [S::f32s; V]) {
    let (whole, rest) = S::as_mut_simd_f32s(target);
    for (target, vector) in whole.iter_mut().zip(vectors) {
        *target = vector;
    }
    if let Some(vector) = vectors.get(whole.len()).filter(|_| !rest.is_empty()) {
        simd.partial_store_f32s(rest, *vector);
    }
}
