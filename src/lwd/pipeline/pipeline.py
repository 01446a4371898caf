"""`LwdPipeline`: class labels to images, in the way of diffusers, through this project's own sampler."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, get_args

import torch
from diffusers import AutoencoderDC, AutoencoderKL, AutoencoderTiny, DiffusionPipeline, ImagePipelineOutput
from PIL import Image
from torch import Tensor

from lwd.encoders.decoder import check_finite
from lwd.encoders.vae import Autoencoder
from lwd.errors import UserError
from lwd.images.sheets import to_uint8
from lwd.ode.methods import Solver
from lwd.pipeline.checkpoint import read_components
from lwd.pipeline.inputs import Integers, read_labels, read_seeds
from lwd.pipeline.scheduler import LwdScheduler
from lwd.pipeline.steps import Callback, sample_stepwise
from lwd.pipeline.transformer import LwdTransformer
from lwd.pipeline.vae import LwdVAE
from lwd.sample.field import make_flow
from lwd.sample.generate import generate
from lwd.sample.guidance import AutoGuidance, ClassifierFreeGuidance

OutputType = Literal["pil", "np", "pt", "latent"]
Scale = float | Mapping[str, float]
"""One for all groups, or one by name."""

EVALUATIONS = {"heun": 2, "midpoint": 2}
"""Of the fixed-step solvers, velocities per step where that is not one."""

_CODE = "pipeline.py"
_IMPORT = "from lwd.pipeline import LwdPipeline as LwdPipeline\n"


class LwdPipeline(DiffusionPipeline):  # type: ignore[misc]
    """A denoiser, the VAE that decodes one group of its latents, and the schedule that it was trained under.

    ``weak_transformer``: a worse model of the same kind, by which AutoGuidance guides. ``decoded_group``: the group
    that the VAE decodes; None: the only one with as many channels as the VAE has. Raises UserError for components that
    do not fit each other. Set a component later by ``register_modules``, for diffusers to save it.

    An image is a function of its label and its own int64 seed alone, up to the rounding of batched products. Seeds are
    drawn from generators one by one, so that equal generators make equal images, the first images do not depend on how
    many are asked for, and with one generator per image none depends on its batch.

    A callback sees, and may change, the standardised latents (N, C, H, W) of all groups after every step; it may also
    set ``pipe._interrupt`` to stop there. It needs a solver whose steps are common to all images and stand alone: any
    but dopri5 and ab2. The steps, and so the images, are the very ones taken without a callback.

    ``enable_model_cpu_offload`` keeps both transformers on the device while they take turns, then the VAE as well.
    ``from_pipe`` matches components by the classes that ``__init__`` names.
    """

    model_cpu_offload_seq = "transformer->vae"  # not the weak one: the two take turns in every step
    _optional_components: ClassVar = ["weak_transformer"]
    _callback_tensor_inputs: ClassVar = ["latents"]
    _interrupt = False

    def __init__(
        self,
        transformer: LwdTransformer,
        vae: AutoencoderKL | AutoencoderDC | AutoencoderTiny | LwdVAE,
        scheduler: LwdScheduler,
        weak_transformer: LwdTransformer | None = None,
        decoded_group: str | None = None,
    ) -> None:
        super().__init__()
        scheduler.check(transformer.layout)
        if weak_transformer is not None:
            _check_weak(transformer, weak_transformer)
        sizes = {group.name: group.channels for group in transformer.layout.groups}
        channels = vae.config.latent_channels
        fitting = [name for name, size in sizes.items() if size == channels]
        if decoded_group is None and len(fitting) != 1:
            raise UserError(
                f"decoded_group: {len(fitting)} groups of {sizes} have the VAE's {channels} channels; name one"
            )
        if decoded_group is not None and decoded_group not in fitting:
            raise UserError(
                f"decoded_group: {decoded_group!r} is no group of {sizes} with the VAE's {channels} channels"
            )
        self.register_modules(transformer=transformer, vae=vae, scheduler=scheduler, weak_transformer=weak_transformer)
        self.register_to_config(decoded_group=decoded_group or fitting[0])

    @classmethod
    def from_checkpoint(
        cls,
        checkpoint: str | Path,
        data: str | Path | None = None,
        vae: str | Path | Autoencoder | None = None,
        weak: str | Path | None = None,
    ) -> Self:
        """From a checkpoint of `lwd train` or a folder of `lwd export`, and the folder of its encoded data, which an
        exported folder carries what is needed of.

        Of the data only the statistics and the manifest are read. ``vae`` (as `load_vae` takes it; None: the one in
        the manifest) decodes; ``weak`` is the checkpoint of a weak model. Raises UserError for whatever is missing or
        does not fit.
        """
        weak_folder = None if weak is None else Path(weak)
        return cls(**read_components(Path(checkpoint), None if data is None else Path(data), vae, weak_folder))

    def save_pretrained(self, save_directory: str | Path, *args: Any, **kwargs: Any) -> None:
        """As every pipeline does, with a pipeline.py of one line that lets `DiffusionPipeline` find this class."""
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _CODE).write_text(_IMPORT, encoding="utf-8")
        super().save_pretrained(str(save_directory), *args, **kwargs)

    def enable_sequential_cpu_offload(self, *args: Any, **kwargs: Any) -> None:
        """Raises UserError: the sampler makes its noise where the network is, and so that would be nowhere."""
        raise UserError("enable_sequential_cpu_offload: is not supported here; use enable_model_cpu_offload")

    @torch.no_grad()
    def __call__(
        self,
        class_labels: Integers | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: Scale = 1.0,
        num_images_per_class: int = 1,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        seeds: Integers | None = None,
        solver: Solver | None = None,
        atol: float = 1e-6,
        rtol: float = 1e-3,
        output_type: OutputType = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callback | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> Any:
        """Sample ``num_images_per_class`` images of each of ``class_labels`` in a row (None: of no class).

        ``num_inference_steps`` None: the adaptive dopri5 with ``atol`` and ``rtol``, as the paper; a number: that many
        steps of ``solver``, by default heun. ``guidance_scale``: AutoGuidance where there is a weak transformer, else
        classifier-free; 1 is none, and a mapping gives every group its own. ``seeds``: one per image; None: drawn from
        ``generator``, from the i-th of a list of them for image i, or from torch's global one.

        ``callback_on_step_end(pipe, step, tau, {"latents": z})`` is called with the global time tau in (0, 1] reached,
        and sampling goes on from the "latents" of the dict that it returns. ``output_type``: "pil"; "np" (N, H, W, 3)
        or "pt" (N, 3, H, W), in [0, 1]; "latent": the standardised latents of all groups.

        Returns diffusers' ImagePipelineOutput, or with ``return_dict`` False the tuple (images,). Raises UserError for
        arguments that do not fit, and where latents or pixels are not finite.
        """
        if output_type not in get_args(OutputType):
            raise UserError(f"output_type: unknown {output_type!r}; known: {', '.join(get_args(OutputType))}")
        if unknown := set(callback_on_step_end_tensor_inputs) - set(self._callback_tensor_inputs):
            raise UserError(f"callback_on_step_end_tensor_inputs: unknown {sorted(unknown)}; there is only 'latents'")
        solver = _solver(solver, num_inference_steps, callback_on_step_end is not None)
        labels = read_labels(class_labels, num_images_per_class, self.transformer.num_classes)
        seeds = read_seeds(seeds, generator, len(labels))
        how = solver, num_inference_steps, atol, rtol
        latents = self._sample(labels, seeds, self._guidance(guidance_scale), how, callback_on_step_end)
        images = latents if output_type == "latent" else self._images(latents, output_type)
        self.maybe_free_model_hooks()
        return ImagePipelineOutput(images=images) if return_dict else (images,)

    def _sample(
        self,
        labels: Tensor,
        seeds: Tensor,
        guidance: AutoGuidance | ClassifierFreeGuidance,
        how: tuple[Solver, int | None, float, float],
        callback: Callback | None,
    ) -> Tensor:
        """Standardised latents (N, C, H, W), with a progress bar that counts evaluations of the network."""
        solver, steps, atol, rtol = how
        model = self.transformer
        self.scheduler.check(model.layout)
        _onload(model)
        where = model, self.scheduler.schedule, model.layout, labels, seeds, model.shape
        self._interrupt = False
        total = math.inf if steps is None else steps * EVALUATIONS.get(solver, 1)
        with self.progress_bar(total=total) as bar:

            def advance(*_: Any) -> None:
                bar.update()  # what a hook returns would replace the output, so this returns nothing

            handle = model.register_forward_hook(advance)
            try:
                if callback is not None and steps is not None:
                    return sample_stepwise(self, make_flow(*where, guidance), solver, steps, callback)
                samples = generate(
                    *where, solver=solver, atol=atol, rtol=rtol, guidance=guidance, steps=1 if steps is None else steps
                )
                return samples.latents
            finally:
                handle.remove()

    def decode(self, latents: Tensor) -> Tensor:
        """Standardised latents (N, C, h, w) of all groups -> images (N, 3, H, W), about [-1, 1], not clipped."""
        _onload(self.vae)
        parts = self.transformer.layout.split(self.scheduler.destandardise(latents))
        vae = self.vae if isinstance(self.vae, LwdVAE) else Autoencoder(self.vae)
        return vae.decode(parts[self.config.decoded_group]).expand(-1, 3, -1, -1)  # grey ones, too

    def _images(self, latents: Tensor, output_type: OutputType) -> Any:
        images = self.decode(latents)
        check_finite(images)
        if output_type == "pil":
            return [Image.fromarray(pixels) for pixels in to_uint8(images).permute(0, 2, 3, 1).cpu().numpy()]
        images = (images / 2 + 0.5).clamp(0, 1)
        return images if output_type == "pt" else images.permute(0, 2, 3, 1).cpu().numpy()

    def _guidance(self, scale: Scale) -> AutoGuidance | ClassifierFreeGuidance:
        names = self.transformer.layout.names
        if isinstance(scale, Mapping) and set(scale) != set(names):
            raise UserError(f"guidance_scale: must name each of the groups {list(names)}, got {sorted(scale)}")
        if self.weak_transformer is None:
            return ClassifierFreeGuidance(scale, self.transformer.null_label)
        _check_weak(self.transformer, self.weak_transformer)
        _onload(self.weak_transformer)
        return AutoGuidance(self.weak_transformer, scale)


def _solver(solver: Solver | None, steps: int | None, has_callback: bool) -> Solver:
    """The solver meant; raises UserError where the three do not go together."""
    chosen: Solver = solver or ("dopri5" if steps is None else "heun")
    if (chosen == "dopri5") != (steps is None):
        wrong = f"{chosen} needs num_inference_steps" if steps is None else "dopri5 chooses its own steps"
        raise UserError(f"solver: {wrong}; leave solver out, or change num_inference_steps={steps}")
    if steps is not None and (isinstance(steps, bool) or not isinstance(steps, int) or steps < 1):
        raise UserError(f"num_inference_steps: must be an integer of at least 1, got {steps!r}")
    if has_callback and chosen in ("dopri5", "ab2"):
        raise UserError(
            f"callback_on_step_end: {chosen} has no steps that stand alone; set num_inference_steps, or heun"
        )
    return chosen


def _check_weak(model: LwdTransformer, weak: LwdTransformer) -> None:
    for what in ("input_size", "num_classes"):
        if (main_s := getattr(model, what)) != (weak_s := getattr(weak, what)):
            raise UserError(f"weak_transformer: its {what} is {weak_s}, the main one's is {main_s}")
    if (weak.layout.names, weak.layout.sizes) != (model.layout.names, model.layout.sizes):
        raise UserError(f"weak_transformer: its layout is {weak.layout}, the main one's is {model.layout}")


def _onload(module: Any) -> None:
    """Under ``enable_model_cpu_offload``, move a network to its device now: what calls it looks where it is."""
    if (hook := getattr(module, "_hf_hook", None)) is not None:
        hook.pre_forward(module)
    if module.device.type == "meta":
        raise UserError(f"{type(module).__name__}: its weights are on the meta device, so nowhere; load them first")
