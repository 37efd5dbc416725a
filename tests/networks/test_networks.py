import pytest
import torch
from monai.networks.nets import DiffusionModelUNet

from common.diffusion import CLEAN, DynamicThreshold, NoiseSchedule, predict, training_target
from common.errors import InputError
from common.networks import (
    Denoiser,
    DenoisingUNet,
    autocast,
    for_inference,
    has_bfloat16,
    load_weights,
    save_weights,
    select_device,
    states_at_once,
)
from common.networks.weights import HASH_FILE
from tests.exact import toy_network

SCHEDULE = NoiseSchedule()
SMALL = {
    "channels": (8, 16),
    "attention_levels": (False, True),
    "num_res_blocks": 1,
    "num_head_channels": 8,
    "norm_num_groups": 8,
}


def unet(dims=2, patch_size=1, **kwargs):
    torch.manual_seed(0)
    return DenoisingUNet(dims, 1, 1, patch_size=patch_size, **{**SMALL, **kwargs}).eval()


def shake(network):
    """Weights without the zeros of the last layer, so that outputs differ."""
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return network


@pytest.mark.parametrize("prediction_type", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize("shape", [(3, 1, 8, 8), (3, 2, 4, 4, 4)], ids=["2d", "3d"])
def test_every_prediction_type_recovers_image_and_noise(prediction_type, shape):
    x0, noise = torch.rand(shape) * 2 - 1, torch.randn(shape)
    for t in (0, 350, torch.tensor([10, 400, 800])):
        x_t = SCHEDULE.add_noise(x0, noise, t)
        output = training_target(x0, noise, SCHEDULE, t, prediction_type)
        prediction = predict(output, x_t, SCHEDULE, t, prediction_type)
        torch.testing.assert_close(prediction.x0, x0, rtol=1e-3, atol=2e-3)
        torch.testing.assert_close(prediction.eps, noise, rtol=1e-3, atol=2e-2)


@pytest.mark.parametrize("clip", ["static", "dynamic"])
def test_clipped_prediction_still_explains_the_state(clip):
    x_t = 3 * torch.randn(2, 1, 8, 8)
    denoiser = (
        Denoiser(toy_network, SCHEDULE)
        if clip == "static"
        else Denoiser(toy_network, SCHEDULE, clip=DynamicThreshold())
    )
    prediction = denoiser(x_t, 300)
    signal, sigma = SCHEDULE.signal_and_noise(300)
    assert prediction.x0.abs().max() <= 1
    torch.testing.assert_close(signal * prediction.x0 + sigma * prediction.eps, x_t)


def test_dynamic_threshold_scales_by_the_quantile():
    x0 = torch.linspace(-4, 4, 101).reshape(1, 1, 101, 1)
    result = DynamicThreshold(0.99)(x0)
    bound = torch.quantile(x0.abs(), 0.99)
    torch.testing.assert_close(result, x0.clamp(-bound, bound) / bound)
    inside = torch.rand(1, 1, 8, 8) - 0.5
    assert torch.equal(DynamicThreshold(0.99)(inside), inside)
    both = torch.cat([x0, 5 * x0], dim=1)  # each channel by itself
    torch.testing.assert_close(DynamicThreshold(0.99)(both)[:, :1], result)


def test_unknown_prediction_type_is_refused():
    with pytest.raises(InputError, match="prediction type"):
        Denoiser(toy_network, SCHEDULE, "noise")(torch.zeros(1, 1, 4, 4), 3)  # type: ignore[arg-type]


def test_clean_level_keeps_the_image():
    x = torch.rand(1, 1, 8, 8)
    prediction = Denoiser(toy_network, SCHEDULE)(x, CLEAN)
    assert torch.equal(prediction.x0, x)
    assert torch.equal(prediction.eps, Denoiser(toy_network, SCHEDULE, clip=None)(x, 0).eps)


def test_evaluations_are_counted_per_case():
    denoiser = Denoiser(toy_network, SCHEDULE)
    denoiser(torch.zeros(3, 1, 4, 4), 10)
    denoiser(torch.zeros(2, 1, 4, 4), 10)
    assert denoiser.evaluations == 5


@pytest.mark.parametrize("t", [-3, 1000])
def test_levels_outside_are_refused(t):
    with pytest.raises(InputError, match=f"level {t}"):
        Denoiser(toy_network, SCHEDULE)(torch.zeros(1, 1, 4, 4), t)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("patch_size", [1, 2])
def test_unet_keeps_shape(dims, patch_size):
    network = shake(unet(dims, patch_size))
    x = torch.randn(2, 1, *(8,) * dims)
    output = network(x, torch.tensor([3, 700]))
    assert output.shape == x.shape
    assert not torch.equal(output, network(x, torch.tensor([600, 10])))
    assert torch.equal(network(x), network(x, torch.zeros(2, dtype=torch.long)))
    assert [f.shape[1] for f in network.features(x, torch.tensor([0, 0]))] == [8, 16]


def test_unet_without_patches_is_monais():
    ours = shake(unet(use_flash_attention=True))
    monais = DiffusionModelUNet(2, 1, 1, use_flash_attention=False, **SMALL).eval()
    monais.load_state_dict(ours.state_dict())
    x, t = torch.randn(2, 1, 16, 16), torch.tensor([3, 700])
    torch.testing.assert_close(ours(x, t), monais(x, timesteps=t), rtol=1e-5, atol=1e-5)


def test_words_are_no_booleans():
    with pytest.raises(InputError, match="True,False"):
        unet(attention_levels=("true", "false"))


def test_sizes_and_channels_are_checked():
    with pytest.raises(InputError, match="not divisible by 4"):
        unet(patch_size=2)(torch.zeros(1, 1, 10, 8))
    with pytest.raises(InputError, match="batch, 1, height, width"):
        unet()(torch.zeros(1, 2, 8, 8))


def test_a_trace_without_timesteps_is_refused():
    with pytest.raises(RuntimeError, match="frozen"):
        torch.jit.trace(unet(), torch.zeros(1, 1, 8, 8))


def test_weights_survive_the_file_in_half_precision(tmp_path):
    network = shake(unet())
    save_weights(network, tmp_path / "model.pt")
    loaded = load_weights(unet(), tmp_path / "model.pt")
    for a, b in zip(network.parameters(), loaded.parameters(), strict=True):
        assert torch.equal(a.half().float(), b)
    save_weights(torch.nn.Linear(1, 1), tmp_path / "classifier.pt")  # the hash of the other file stays
    names = [line.split()[1] for line in (tmp_path / HASH_FILE).read_text().splitlines()]
    assert names == ["classifier.pt", "model.pt"]


def test_every_flipped_bit_is_found(tmp_path):
    path = tmp_path / "model.pt"
    save_weights(unet(), path)
    data = path.read_bytes()
    for position in torch.linspace(0, len(data) - 1, 25).long().tolist():
        damaged = bytearray(data)
        damaged[position] ^= 1 << position % 8
        path.write_bytes(bytes(damaged))
        with pytest.raises(InputError, match=HASH_FILE):
            load_weights(unet(), path)


def test_bad_weights_are_refused(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        load_weights(unet(), tmp_path / "model.pt")
    save_weights(unet(channels=(16, 16)), tmp_path / "model.pt")
    with pytest.raises(InputError, match="another network"):
        load_weights(unet(), tmp_path / "model.pt")
    (tmp_path / "other.pt").write_bytes(b"not weights")
    with pytest.raises(InputError, match="cannot be read"):
        load_weights(unet(), tmp_path / "other.pt")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(tmp_path, value):
    network = unet()
    with torch.no_grad():
        next(network.parameters())[0, 0] = value
    save_weights(network, tmp_path / "model.pt")
    with pytest.raises(InputError, match=r"model\.pt: holds values in '.*' that are not finite"):
        load_weights(unet(), tmp_path / "model.pt")


def test_devices():
    assert select_device("cpu") == torch.device("cpu")
    assert select_device() in (torch.device("cpu"), torch.device("cuda"))
    with pytest.raises(InputError, match="not known"):
        select_device("gpu")
    with pytest.raises(InputError, match="not on this machine"):
        select_device(f"cuda:{torch.cuda.device_count()}")


@pytest.mark.parametrize("amx", [True, False])
def test_cpus_run_bfloat16_where_they_have_amx(amx, monkeypatch):
    """Vector instructions alone make it slower than float32."""
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    assert has_bfloat16(torch.device("cpu")) is amx
    network, x = shake(unet()), torch.randn(2, 1, 8, 8)
    full, half = (Denoiser(network, NoiseSchedule(), amp=each)(x, 300).eps for each in (False, True))
    assert torch.equal(full, half) is not amx


@pytest.mark.usefixtures("with_amx")
def test_bfloat16_stays_close():
    network, x, t = shake(unet()), torch.randn(2, 1, 16, 16), torch.tensor([3, 700])
    with torch.no_grad(), autocast(torch.device("cpu"), True):
        half = network(x, t)
    full = network(x, t)
    assert (half.float() - full).norm() < 0.05 * full.norm()


def test_the_form_for_inference_says_the_same():
    network, x, t = shake(unet()), torch.randn(3, 1, 16, 16), torch.tensor([3, 700, 20])
    with torch.no_grad():
        before = network(x, t)
        after = for_inference(network, False)(x, t)
    assert (after - before).norm() < 1e-5 * before.norm()
    assert for_inference(toy_network, True) is toy_network


@pytest.mark.usefixtures("with_amx")
@pytest.mark.parametrize("dims", [2, 3])
def test_amp_rounds_a_copy_of_the_weights(dims):
    network, x = shake(unet(dims)), torch.randn(2, 1, *[8] * dims)
    weights = [each.clone() for each in network.parameters()]
    full, half = (Denoiser(network, NoiseSchedule(), amp=amp)(x, 300).eps for amp in (False, True))
    assert half.dtype == torch.float32
    assert (half - full).norm() < 0.05 * full.norm()
    assert all(torch.equal(*pair) for pair in zip(weights, network.parameters(), strict=True))
    assert {each.dtype for each in network.parameters()} == {torch.float32}


@pytest.mark.usefixtures("with_amx")
def test_weights_are_rounded_anew_when_they_change():
    network, x = shake(unet()), torch.randn(2, 1, 8, 8)
    first = for_inference(network, True)
    assert for_inference(network, True) is first
    before = Denoiser(network, NoiseSchedule(), amp=True)(x, 300).eps
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(2)
    after = Denoiser(network, NoiseSchedule(), amp=True)(x, 300).eps
    right = Denoiser(network, NoiseSchedule())(x, 300).eps
    assert (after - right).norm() < 0.05 * right.norm() < (before - right).norm()


def test_memory_is_bounded_and_results_are_the_same():
    sizes = []

    def network(x, timesteps, shift, flag):
        assert flag == "on"
        sizes.append(len(x))
        return toy_network(x, timesteps) + shift

    shift = torch.arange(7.0).reshape(7, 1, 1, 1)
    x, t = torch.randn(7, 1, 8, 8), torch.arange(7) * 100
    whole, parts = (Denoiser(network, NoiseSchedule(), max_batch=size) for size in (None, 3))
    torch.testing.assert_close(parts(x, t, shift=shift, flag="on"), whole(x, t, shift=shift, flag="on"))
    assert sizes == [3, 3, 1, 7]
    assert parts.evaluations == whole.evaluations == 7
    assert states_at_once(torch.empty(200, 1, 80, 96)) == 19
    assert states_at_once(torch.empty(2, 1, 400, 400)) == 1
