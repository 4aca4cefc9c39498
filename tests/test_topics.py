"""What the course must teach, row by row, and the test or the executed cell that shows it. A row without its evidence fails here."""

import ast
import re
from pathlib import Path

import build
import nbformat
import pytest

HERE = Path(__file__).resolve().parent

# Row -> "test_file::test_function", or "chapter: text that an executed code cell or its output must contain".
ROWS: dict[str, list[str]] = {
    "1 one forward step; chained moments equal the closed form": [
        "test_forward::test_q_step_coefficients_at_every_t",
        "test_forward::test_walking_and_jumping_have_the_same_law",
        "02_forward: chained moments = closed form at all 1,000 times, to 1e-12: True",
    ],
    "2 closed form by merging and by induction; tables to 1e-12; a walk against a jump, timed": [
        "test_schedule::test_tables_agree_with_exact_products",
        "test_forward::test_q_sample_coefficients_at_every_t",
        "02_forward: Ho eq. 4, the variance",
        "02_forward: a walk of 1,000 steps takes about",
    ],
    "3 schedules: beta in (0, 1), SNR strictly falling, alpha_bar_T = 0 refused": [
        "test_schedule::test_alpha_bar_must_fall_and_stay_above_zero",
        "test_schedule::test_snr_is_the_ratio_of_the_shares",
        "test_schedule::test_zero_terminal_snr_defaults_to_a_millionth_and_refuses_nonsense",
        "02_forward: assert bool((snr[1:] < snr[:-1]).all()) and bool(((s.beta[1:] > 0) & (s.beta[1:] < 1)).all())",
    ],
    "4 Gaussian primer: moments, and noise used twice": ["test_mistakes::test_verify_passes", "01_gaussians: identity. Proved by SymPy"],
    "5 Bayes given x_0; the posterior on a grid to 1e-6": [
        "test_posterior::test_numeric_bayes_on_a_grid",
        "03_posterior: posterior_on_grid",
    ],
    "6 completing the square, normaliser too": [
        "test_posterior::test_coefficients_at_every_t",
        "03_posterior: Ho eqs. 6-7, the mean",
        "03_posterior: Ho eqs. 6-7, the normaliser",
    ],
    "7 the mean in eps form equals the x_0 form to 1e-9; round trips": [
        "test_posterior::test_x_0_form_equals_eps_form",
        "test_prediction::test_round_trips",
        "03_posterior: Ho eq. 15, solved for the noise",
    ],
    "8 reparametrization: gradients flow; variance for standard deviation": [
        "test_forward::test_inputs_are_left_alone_and_gradients_flow",
        "test_mistakes::test_verify_passes",
        "04_one_latent: z computed from eps",
    ],
    "9 the bound's three terms: signs, and their sum": [
        "test_elbo::test_signs_of_the_three_terms",
        "test_elbo::test_the_bound_is_the_sum_and_bits_divide_by_the_numbers",
        "test_elbo::test_the_discrete_decoder_sums_over_256_bins",
    ],
    "10 a VAE is T = 1; the same code; T compared at equal alpha_bar_T": [
        "test_elbo::test_a_vae_has_the_same_three_terms",
        "test_elbo::test_the_bound_with_one_step_is_that_of_a_vae_with_a_frozen_encoder",
        "05_elbo: counts = (1, 2, 5, 20, 100, 1000)",
    ],
    "11 KL of two Gaussians": [
        "test_gaussian::test_kl_equals_quadrature",
        "test_gaussian::test_kl_is_not_negative",
        "01_gaussians: inequality. Tried on",
    ],
    "12 x_0, eps, v, score: weights convert to 1e-12; train each": [
        "test_losses::test_one_error_has_three_sizes_that_convert",
        "test_prediction::test_score_is_the_gradient_of_log_q",
        "06_prediction: SDE section 3.3",
    ],
    "13 L_simple and its true weight": [
        "test_losses::test_vlb_weight_is_ho_equation_12",
        "test_losses::test_vlb_weight_is_what_one_error_in_eps_costs",
        "06_prediction: Ho eq. 12",
        "06_prediction: VDM section 4",
    ],
    "14 bits per dim, per-t terms; the bound above the exact likelihood; with the optimal covariance only the prior is left": [
        "test_elbo::test_the_discrete_decoder_sums_over_256_bins",
        "test_likelihood::test_for_every_x_0_the_expected_bound_is_above_the_models_own_likelihood",
        "test_likelihood::test_the_expected_bound_is_above_the_entropy_of_a_mixture",
        "test_likelihood::test_with_the_optimal_covariance_only_the_prior_is_left",
        "test_likelihood::test_within_one_percent_of_the_exact_likelihood",
        "12_likelihood: bound - entropy = KL(q(x_T) || N(0, I)) to 1e-8: True",
    ],
    "16 Algorithm 2: three noises, none at the last step; exact-oracle moments; equal to the hand-written loop": [
        "test_sampling::test_ddpm_sample_is_the_loop_one_would_write",
        "test_sampling::test_no_noise_at_the_end",
        "test_exact::test_ddpm_recovers_mean_and_covariance_by_sampling",
        "09_sampling: 1,000 steps by hand = package: True",
        "09_sampling: largest error of mean and covariance below 0.05: True True",
        "09_sampling: exactly 1,000 draws: True",
    ],
    "15 Algorithm 1: ten lines by hand and train, the same losses from the same seed": [
        "test_train::test_the_first_loss_is_algorithm_1_by_hand",
        "test_train::test_same_seed_same_network_and_the_worlds_generator_is_left_alone",
        "08_train: 20 losses equal, and all weights of the average equal: True",
    ],
    "17 reverse variances: tables; effect on the bound and on samples": [
        "test_variance::test_table_of_the_optimal_variance_for_a_gaussian",
        "test_variance::test_order_of_the_variances",
        "test_variance::test_learning_finds_the_variance_and_lowers_the_bound",
        "12_likelihood: the optimal variance has the lowest bound: True",
        "12_likelihood: nearest to the truth per axis:",
    ],
    "18 clipping x_0_hat, eps derived again; a NaN raises, naming t": [
        "test_prediction::test_clipping_moves_only_what_is_outside",
        "test_prediction::test_guard_names_the_time",
        "09_sampling: with eps derived again both means agree: True",
        "09_sampling: with a guard: the model's eps is not finite at t = 137",
    ],
    "19 the DDIM family for any sigma; eta = 1 is DDPM": [
        "test_sampling::test_ddim_with_eta_1_is_ddpm_on_the_full_grid",
        "test_sampling::test_ddim_step_coefficients",
        "10_ddim: DDIM Theorem 1",
        "10_ddim: eta = 1 equals DDPM: True",
    ],
    "37 evaluation: scores with n and floor; memorising": [
        "test_scores::test_a_score_prints_its_n_and_its_floor_in_every_way",
        "test_scores::test_a_score_without_n_or_floor_cannot_be_made",
        "test_scores::test_copies_are_perfect_by_every_score_but_one",
        "14_evaluation: distance to nearest training",
        "test_model_cards::test_scores_come_with_n_a_floor_and_three_seeds",
        "test_metrics::test_inception_features_take_any_network",
    ],
    "42 GAN, VAE and DDPM on the same data and budget, in one table with floors": [
        "14_evaluation: ± over 3 seeds",
        "14_evaluation: both runs of the VAE beat both of the DDPM: True",
    ],
    "20 the deterministic path, inversion, interpolation": [
        "test_sampling::test_eta_0_twice_is_equal_and_draws_nothing",
        "test_solvers::test_inversion_error_falls_like_one_over_steps",
        "test_solvers::test_fixed_point_inversion_is_exact",
        "13_score_and_ode: soft         60 iterations: median error below 1e-9: True, largest below 1e-9: True",
    ],
    "21 few large steps; grids; no wrong neighbour; one network in both samplers": [
        "test_sampling::test_grids_equal_their_formulas",
        "test_sampling::test_grids_fall_strictly_from_at_most_T_to_0",
        "test_solvers_against_diffusers::test_their_ddim_with_a_wrong_neighbour_is_far_from_the_exact_path",
        "10_ddim: same first answer: True",
    ],
    "22 quality against steps, honestly": [
        "test_model_cards::test_quality_against_steps_was_measured_on_these_weights",
        "10_ddim: 5 steps with the perfect denoiser: 69% off mode, exact samples 1%",
        "13_score_and_ode: ring: off-mode samples (over 3 standard deviations), %",
        "13_score_and_ode: the statements about spread, strays and copies: True",
        "13_score_and_ode: Heun with 5 calls over three times the floor",
    ],
    "29 classifier-free guidance; s = 1 + w; exact on a mixture; labels hidden one by one; not p(x) p(y|x)^s": [
        "test_guidance::test_scales_0_and_1_run_one_branch_and_are_bit_equal",
        "test_guidance::test_one_forward_pass_equals_two",
        "test_guidance::test_the_two_conventions_convert",
        "test_guidance::test_classifier_free_equals_classifier_guidance_when_both_are_exact",
        "test_guidance::test_scale_3_does_not_sample_p_x_times_p_y_cubed",
        "test_feed::test_labels_are_hidden_each_for_itself_and_never_in_validation",
        "test_model_cards::test_guidance_scales_were_measured_on_these_weights",
        "17_classifier_free: CFG eq. 6",
        "17_classifier_free: by hand = package = classifier guidance with the exact classifier: True",
        "17_classifier_free: each sample is off by 0.29 on average",
        "17_classifier_free: 359 samples for each of 3 seeds in a row",
    ],
    "35 score, SDE and ODE; Heun and 2M; orders on the oracle": [
        "test_solvers::test_orders_of_convergence_on_a_mixture",
        "test_solvers_against_diffusers::test_dpm_solver_trajectory",
        "13_score_and_ode: score = -eps / sqrt(1 - alpha_bar) at 4 times: True",
        "13_score_and_ode: (13.22) limit. Measured: the error falls with order 2",
        "test_solvers::test_with_almost_no_signal_at_the_end_v_forgives_what_eps_does_not",
    ],
    "27 classifier guidance: the eps form exact to 1e-10, the mean shift only as T grows; the wish comes true on digits": [
        "test_guidance::test_the_eps_form_with_the_exact_classifier_is_the_conditional",
        "test_guidance::test_the_mean_shift_is_exact_only_as_steps_become_small",
        "test_classifier::test_the_shipped_one_is_as_good_as_its_card_says",
        "16_classifier_guidance: eps form = eps of the class alone to 1e-10: True",
        "16_classifier_guidance: (16.6) limit. Measured: the error falls with order 1.5",
        "16_classifier_guidance: n = 1,000, scale 3: the requested class in at least 90 %: True",
        "16_classifier_guidance: n = 1,000, no guidance: the requested class in about 10 % (6 to 14): True",
    ],
    "28 one model per class, on the same budget, beside guidance": ["16_classifier_guidance: one model per class"],
    "31 inpainting: known pixels exact, the exact posterior score, RePaint's bias against resamplings (S = 250, 20: 5 % and 20 %)": [
        "test_editing::test_the_posterior_score_samples_the_exact_conditional",
        "test_editing::test_repaint_comes_near_the_conditional_with_resampling_and_not_without",
        "test_editing::test_pasting_alone_passes_on_half_of_the_pull_or_little_more",
        "test_editing_scores::test_resampling_joins_the_halves_and_more_steps_do_not",
        "19_editing: posterior score: mean within 3 standard errors True",
        "19_editing: known pixels exact: True True",
        "19_editing: (19.8) limit. Measured: the error falls with order 1",
        "19_editing: S = 250, r = 20: mean off by 3% (at most 5 %: True), variance off by 7% (at most 20 %: True)",
    ],
    "32 super-resolution: a network that sees the small picture; PSNR beside bicubic, reported": [
        "test_editing::test_the_small_picture_is_what_the_network_is_told",
        "test_editing_scores::test_super_resolution_beats_bicubic_and_a_draw_has_more_error_than_the_mean",
        "test_editing_scores::test_the_super_resolution_network_again",
        "19_editing: error of a draw / error of the mean: 2.0",
        "19_editing: bicubic, all pictures, the same to three digits: True True",
    ],
    "33 image to image: SDEdit and rewriting by DDIM inversion; inversion error against steps": [
        "test_editing::test_more_strength_keeps_less",
        "test_editing::test_translation_there_and_back_and_between_gaussians",
        "test_editing_scores::test_thin_upright_digits_become_bold_and_slanted_and_stay_themselves",
        "19_editing: (19.16) limit. Measured: the error falls with order 1",
        "19_editing: 1,000 steps: within 0.03 of (19.15): True",
    ],
    "24 data: range, flips where they make sense, splits; the test part is read once": [
        "test_data::test_split_is_disjoint_complete_and_follows_the_seed",
        "test_data::test_images_in_another_range_are_refused",
        "test_data::test_pictures_of_ones_own_are_split_like_all_others",
        "test_feed::test_half_of_the_pictures_are_mirrored_each_for_itself",
        "08_train: recognised upright: over 95 %; mirrored: under 50 %",
        "08_train: read once",
    ],
    "23 the U-Net's parts: counts, checkerboard, t; skip, upsampling, attention and time measured with three seeds": [
        "test_unet::test_cifar10_has_exactly_the_parameters_of_the_paper",
        "07_unet: ablations-parts.json",
        "07_unet: without skips or time clearly worse",
        "07_unet: nearest + conv",
    ],
    "25 optimiser, warm-up, clipping, EMA; rate against batch on validation data": [
        "test_ema::test_buffers_are_copied_never_averaged",
        "08_train: ablations-sweep.json",
        "08_train: at an equal number of pictures the smaller batch wins: True",
    ],
    "26 mixed precision; accumulation and checkpointing; one GPU, many, many machines": [
        "test_train::test_autocast_reaches_the_network_alone",
        "test_train::test_accumulated_micro_batches_equal_the_full_batch",
        "test_train::test_resuming_is_bit_exact",
        "test_unet::test_checkpointing_gives_equal_gradients",
        "test_feed::test_several_processes_share_the_batch_of_one",
        "test_cli_train::test_two_processes_are_one",
    ],
    "36 latent diffusion: a VAE, a DDPM in its latent, digits that an independent classifier accepts": [
        "test_latent::test_latents_are_trained_on_like_any_x",
        "test_latent::test_decoding_undoes_the_scale_whatever_it_is",
        "test_latent::test_the_report_belongs_to_the_shipped_weights",
        "21_latent_diffusion: (21.2) identity. Each of the 5 lines proved equal",
        "21_latent_diffusion: accepted at least 0.7 times as often as real ones, from N(0, I) at most 0.02 times, n = 1000: True",
    ],
    "39 the listing that learners find everywhere, equal to ours after the shift": ["09_sampling: class GaussianDiffusionSampler"],
    "34 time series: a Transformer, an answer in parts; autocorrelation and marginals inside bands; gaps against the exact conditional": [
        "test_transformer::test_the_parts_add_up_and_each_is_what_it_is_called",
        "test_transformer::test_without_positions_the_order_of_the_words_is_lost",
        "test_losses::test_with_spectrum_adds_the_mean_modulus_of_the_errors_waves",
        "test_series::test_gaps_are_filled_as_the_exact_conditional_says",
        "test_series_stats::test_a_band_holds_what_it_promises",
        "test_series_stats::test_the_order_band_covers_what_it_says",
        "20_series: share inside the band for all together",
        "20_series: known points exact in all tasks: True",
        "20_series: the parts add up to the answer, and the trend is a polynomial of degree 3: True",
    ],
    "41 other signals: a waveform, its spectrum against the data's and a floor": [
        "test_series::test_a_string_sounds_at_its_pitch_and_dies_away",
        "20_series: distance of the network's spectrum",
    ],
    "30 text to image: captions as conditions, cross-attention, held-out combinations far above chance for a judge": [
        "test_captions::test_a_sixth_of_the_combinations_is_kept_out_and_every_two_properties_meet_in_training",
        "test_canvas::test_captions_are_hidden_each_for_itself_and_never_in_validation",
        "test_text::test_pooled_is_the_mean_of_the_words_and_reaches_all_pixels_alike",
        "test_text_scores::test_held_out_captions_are_obeyed_far_above_chance",
        "test_text_scores::test_the_judge_sees_as_well_as_it_is_said_to",
        "18_text_to_image: cross-attention by hand = package: True",
        "18_text_to_image: text to image by hand = package: True",
        "18_text_to_image: none was seen in training: True",
        "18_text_to_image: measured on these weights: True",
    ],
    "38 further reading: links only, with what each adds": ["test_docs::test_further_reading_has_every_paper_that_the_package_cites"],
    "40 analogies, each with where it breaks": [
        "00_tour: ",
        "01_gaussians: ",
        "02_forward: ",
        "04_one_latent: ",
        "07_unet: ",
        "10_ddim: ",
        "14_evaluation: ",
        "19_editing: ",
    ],
}


def shown(name: str) -> str:
    """Sources of the code cells that ran, and what they printed."""
    cells = [
        cell for cell in nbformat.read(build.notebook_path(name), as_version=4).cells if cell.cell_type == "code" and cell.execution_count
    ]
    return "\n".join([*(cell.source for cell in cells), *(out.get("text", "") for cell in cells for out in cell.outputs)])


@pytest.mark.parametrize(("row", "evidence"), [(row, item) for row, items in ROWS.items() for item in items])
def test_the_row_has_its_evidence(row: str, evidence: str) -> None:
    if "::" in evidence:
        file, function = evidence.split("::")
        tree = ast.parse((HERE / f"{file}.py").read_text(encoding="utf-8"))
        assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    else:
        name, text = evidence.split(": ", 1)
        assert text in shown(name)


@pytest.mark.parametrize("name", [item.split(":")[0] for item in ROWS["40 analogies, each with where it breaks"]])
def test_an_analogy_says_where_it_breaks(name: str) -> None:
    text = "\n".join(cell.source for cell in nbformat.read(build.notebook_path(name), as_version=4).cells if cell.cell_type == "markdown")
    assert re.search(r"Where (it|the image) breaks", text)
