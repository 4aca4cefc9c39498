"""ddpm_course: denoising diffusion, small enough to read. Time is the paper's t = 1..T; tables are float64; x_t is float32."""

from .checkpoint import Trained, load_model, save_model, shipped
from .editing import image_to_image, inpaint, super_resolve, translate
from .elbo import VLBTerms, bits_per_dim, vae_terms, vlb_term, vlb_terms
from .errors import CourseError
from .exact import ExactGaussian, FiniteData, GaussianMixture
from .forward import q_sample, q_step
from .gaussian import discretized_log_prob, normal_kl, normal_log_prob
from .guidance import batched_guidance, classifier_free, classifier_guided
from .interop import load_diffusers, load_diffusers_trained, save_diffusers
from .likelihood import ImportanceTimes, density_bits, dequantise, ode_log_prob, sampled_bound
from .losses import diffusion_loss, min_snr_weight, simple_loss, vlb_weight
from .models import MLP, VAE, UNet, UNetConfig
from .posterior import q_posterior, reverse_variance
from .prediction import (
    as_eps_model,
    clip_x_0,
    compiled,
    eps_to_score,
    eps_to_v,
    eps_to_x_0,
    guard_finite,
    v_to_eps,
    v_to_x_0,
    x_0_to_eps,
    x_0_to_v,
)
from .sampling import ddim_sample, ddim_step, ddpm_sample, ddpm_step, time_grid, trajectory
from .schedule import (
    NoiseSchedule,
    cosine_schedule,
    linear_schedule,
    quadratic_schedule,
    rescale_zero_terminal_snr,
    sigmoid_schedule,
)
from .solvers import ddim_invert, dpm_solver_sample, heun_sample
from .train import TrainConfig, train
from .variance import eps_moments, hybrid_loss, learned_range, optimal_variance

__version__ = "0.1.0"
