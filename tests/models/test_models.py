"""World models: shapes, known answers, and that every configuration value changes what it says."""

import pytest
import torch
from torch import nn

from cwm_hub.config import ConfigError
from cwm_hub.models import augment as augmentations
from cwm_hub.models.action_world_model import ActionWorldModel, ActionWorldModelConfig
from cwm_hub.models.context import (
    ContextConcat,
    ContextConfig,
    CrossAttention,
    choose_context_frames,
    kept_tokens,
    token_subset,
)
from cwm_hub.models.frame_model import FrameModelConfig, centred, image_loss, to_pixels
from cwm_hub.models.heads import HeadConfig
from cwm_hub.models.objectives import ContrastiveObjective, ObjectiveConfig, SelfPredictionObjective
from cwm_hub.models.registry import create_model, list_models, model_config
from cwm_hub.models.rssm import RSSM, RSSMConfig, RSSMState, balanced_kl, categorical_kl

SMALL_RSSM = RSSMConfig(stoch=3, classes=4, deter=10, hidden=12, action_size=5)


@pytest.fixture
def clips():
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (2, 6, 3, 32, 32), dtype=torch.uint8, generator=generator)


@pytest.fixture
def is_first():
    first = torch.zeros(2, 6, dtype=torch.bool)
    first[:, 0] = True
    return first


def debug(name="contextwm-debug", **overrides):
    torch.manual_seed(0)
    return create_model(name, overrides=overrides)


# Latent dynamics.


def test_observe_equals_single_steps():
    torch.manual_seed(0)
    rssm = RSSM(SMALL_RSSM, embed=7)
    embed, action = torch.randn(2, 5, 7), torch.randn(2, 5, 3)
    first = torch.tensor([[True, False, False, True, False], [True, False, False, False, False]])
    posterior, prior = rssm.observe(embed, action, first, sample=False)
    state = rssm.initial(2)
    for t in range(5):
        state, step_prior = rssm.obs_step(state, action[:, t], embed[:, t], first[:, t], sample=False)
        torch.testing.assert_close(state.deter, posterior.deter[:, t])
        torch.testing.assert_close(state.logits, posterior.logits[:, t])
        torch.testing.assert_close(step_prior.logits, prior.logits[:, t])


def test_is_first_forgets_everything_before():
    torch.manual_seed(0)
    rssm = RSSM(SMALL_RSSM, embed=7)
    embed, action = torch.randn(1, 4, 7), torch.randn(1, 4, 3)
    first = torch.tensor([[True, False, True, False]])
    whole, _ = rssm.observe(embed, action, first, sample=False)
    tail, _ = rssm.observe(embed[:, 2:], action[:, 2:], torch.tensor([[True, False]]), sample=False)
    torch.testing.assert_close(whole.deter[:, 2:], tail.deter)


def test_absent_action_equals_zero_action():
    torch.manual_seed(0)
    rssm = RSSM(SMALL_RSSM, embed=7)
    embed, first = torch.randn(2, 4, 7), torch.zeros(2, 4, dtype=torch.bool)
    without, _ = rssm.observe(embed, None, first, sample=False)
    zeros, _ = rssm.observe(embed, torch.zeros(2, 4, 5), first, sample=False)
    torch.testing.assert_close(without.deter, zeros.deter)


def test_imagine_follows_the_prior_of_observe():
    """With one frame seen, the first imagined step is the prior of the second frame."""
    torch.manual_seed(0)
    rssm = RSSM(SMALL_RSSM, embed=7)
    embed, first = torch.randn(2, 2, 7), torch.tensor([[True, False]] * 2)
    posterior, prior = rssm.observe(embed, None, first, sample=False)
    imagined = rssm.imagine(posterior.select((slice(None), 0)), steps=3, sample=False)
    assert imagined.deter.shape == (2, 3, 10)
    torch.testing.assert_close(imagined.logits[:, 0], prior.logits[:, 1])


def test_samples_follow_the_logits():
    rssm = RSSM(SMALL_RSSM, embed=7)
    probabilities = torch.tensor([0.1, 0.2, 0.3, 0.4])
    state = rssm.initial(1)
    with torch.no_grad():
        rssm.prior_logits.weight.zero_()
        rssm.prior_logits.bias.copy_(probabilities.log().repeat(3))
        draws = torch.stack(
            [
                rssm.img_step(state, None, generator=torch.Generator().manual_seed(s)).stoch
                for s in range(2000)
            ]
        )
    assert set(draws.sum(-1).round().flatten().tolist()) == {1.0}
    frequency = draws.mean((0, 1, 2))
    assert (frequency - probabilities).abs().max() < 0.03  # 6,000 draws: a standard error below 0.007


def test_straight_through_gradient_reaches_the_logits():
    rssm = RSSM(SMALL_RSSM, embed=7)
    posterior, _ = rssm.observe(torch.randn(1, 2, 7), None, torch.zeros(1, 2, dtype=torch.bool))
    (posterior.stoch[:, 0] * torch.arange(4.0)).sum().backward()
    assert rssm.posterior_logits.weight.grad.abs().sum() > 0


def test_kl_of_hand_worked_categoricals():
    """KL((1/2, 1/2) || (1/4, 3/4)) = 1/2 ln 2 + 1/2 ln (2/3)."""
    left, right = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.25, 0.75]]).log()
    expected = 0.5 * torch.tensor(2.0).log() + 0.5 * torch.tensor(2 / 3).log()
    torch.testing.assert_close(categorical_kl(left, right), expected)


def test_balance_and_free_nats_of_the_kl():
    post = torch.tensor([[[0.5, 0.5]]]).log().requires_grad_()
    prior = torch.tensor([[[0.25, 0.75]]]).log().requires_grad_()

    def states():
        return tuple(RSSMState(torch.zeros(1, 1), torch.zeros(1, 1, 2), logits) for logits in (post, prior))

    loss, value = balanced_kl(*states(), balance=0.8)
    torch.testing.assert_close(loss, value.mean())
    post_grad, prior_grad = torch.autograd.grad(loss, (post, prior))
    only_prior = torch.autograd.grad(balanced_kl(*states(), balance=1.0)[0], prior)[0]
    torch.testing.assert_close(prior_grad, 0.8 * only_prior)
    assert post_grad.abs().sum() > 0
    loss, _ = balanced_kl(*states(), free_nats=5.0)
    assert loss == 5.0
    assert torch.autograd.grad(loss, prior)[0].abs().sum() == 0


def test_action_wider_than_the_slot_is_an_error():
    with pytest.raises(ValueError, match="action has 6 numbers, the RSSM's slot takes 5"):
        RSSM(SMALL_RSSM, embed=7).img_step(RSSM(SMALL_RSSM, embed=7).initial(1), torch.zeros(1, 6))


# Context.


def reference_attention(mixer: CrossAttention, channels: int) -> nn.MultiheadAttention:
    """torch's own multi-head attention with the mixer's weights."""
    attention = nn.MultiheadAttention(channels, mixer.config.heads, batch_first=True).eval()
    with torch.no_grad():
        attention.in_proj_weight.copy_(torch.cat([mixer.query.weight, mixer.key_value.weight]))
        attention.in_proj_bias.copy_(torch.cat([mixer.query.bias, mixer.key_value.bias]))
        attention.out_proj.weight.copy_(mixer.output.weight)
        attention.out_proj.bias.copy_(mixer.output.bias)
    return attention


@pytest.mark.parametrize("frames", [1, 2])
def test_cross_attention_equals_torchs_multihead_attention(frames):
    """The paper: queries = features + position, keys = values = context + position, z = ReLU(z + norm(attended))."""
    torch.manual_seed(0)
    mixer = CrossAttention(8, 4, ContextConfig(heads=2, frames=frames), norm="batch").eval()
    for parameter in mixer.parameters():
        nn.init.normal_(parameter, std=0.5)
    z, tokens = torch.randn(6, 8, 4, 4), torch.randn(2, 16 * frames, 8)
    query = z.flatten(2).transpose(1, 2) + mixer.query_position
    context = (tokens + mixer.key_position.repeat(frames, 1)).repeat_interleave(3, 0)
    attended, weights = reference_attention(mixer, 8)(query, context, context)
    expected = torch.relu(z + mixer.norm(attended.transpose(1, 2).reshape(z.shape)))
    torch.testing.assert_close(mixer(z, tokens, ratio=0.0), expected)
    torch.testing.assert_close(mixer.attention_weights(z, tokens), weights)


def test_token_dropout_equals_attention_over_the_kept_tokens():
    torch.manual_seed(0)
    mixer = CrossAttention(8, 4, ContextConfig(heads=2), norm="group").eval()
    z, tokens = torch.randn(6, 8, 4, 4), torch.randn(2, 16, 8)
    torch.manual_seed(1)
    dropped = mixer(z, tokens, ratio=0.75)
    torch.manual_seed(1)
    rows = token_subset(6, 16, keep=4, device=z.device)
    attention = reference_attention(mixer, 8)
    for image in range(6):
        clip = (tokens + mixer.key_position)[image // 3, rows[image]][None]
        query = z[image : image + 1].flatten(2).transpose(1, 2) + mixer.query_position
        attended, _ = attention(query, clip, clip)
        expected = torch.relu(z[image] + mixer.norm(attended.transpose(1, 2).reshape(1, 8, 4, 4))[0])
        torch.testing.assert_close(dropped[image], expected)


def test_token_subsets_are_distinct_tokens_and_differ_between_frames():
    rows = token_subset(50, 16, keep=4, device=torch.device("cpu"))
    assert all(len(set(row.tolist())) == 4 for row in rows)
    assert len({tuple(sorted(row.tolist())) for row in rows}) > 25
    assert [kept_tokens(256, ratio=r) for r in (0.0, 0.75, 0.999)] == [256, 64, 1]


def test_concat_mixing_uses_the_map():
    torch.manual_seed(0)
    mixer = ContextConcat(8, norm="group")
    z, tokens = torch.randn(4, 8, 4, 4), torch.randn(2, 16, 8)
    out = mixer(z, tokens, ratio=0.75)
    changed = mixer(z, tokens + 1, ratio=0.75)
    assert out.shape == z.shape
    assert not torch.allclose(out, changed)


def test_context_frames_are_the_ones_named(clips):
    assert torch.equal(choose_context_frames(clips, frame="first", frames=2), clips[:, :2])
    assert torch.equal(choose_context_frames(clips, frame="last", frames=1), clips[:, -1:])
    torch.manual_seed(0)
    seen = torch.zeros(2, 6)
    for _ in range(300):
        chosen = choose_context_frames(clips, frame="random", frames=2)
        for b in range(2):
            matches = [t for frame in chosen[b] for t in range(6) if torch.equal(frame, clips[b, t])]
            assert len(set(matches)) == 2
            seen[b, matches] += 1
    assert (seen / 300 - 1 / 3).abs().max() < 0.1  # each of 6 frames is one of 2 chosen


def test_random_context_frames_are_drawn_clip_by_clip():
    numbered = torch.arange(6, dtype=torch.uint8)[None, :, None, None, None].expand(50, -1, 3, 4, 4)
    torch.manual_seed(0)
    chosen = choose_context_frames(numbered, frame="random", frames=1)[:, 0, 0, 0, 0]
    assert set(chosen.tolist()) == set(range(6))


def test_posterior_never_sees_the_context(clips, is_first):
    first, last = (debug(**{"frame.context.frame": frame}).eval() for frame in ("first", "last"))
    a, _ = first.observe(clips, is_first, sample=False)
    b, _ = last.observe(clips, is_first, sample=False)
    assert torch.equal(a.logits, b.logits)
    feature = first.rssm.feature(a)
    assert not torch.equal(first.decode(feature, clips[:, :1]), first.decode(feature, clips[:, -1:]))


@pytest.mark.parametrize("kind", ["shift", "flip", "scale", "erasing"])
def test_augmentations_change_the_image_and_keep_its_range(kind):
    torch.manual_seed(0)
    image = torch.rand(64, 3, 32, 32) - 0.5
    out = augmentations.augment(image, kind)
    changed = (out != image).flatten(1).any(1).float().mean()
    assert out.shape == image.shape
    assert out.abs().max() <= 0.5 + 1e-6
    assert changed > 0.25
    assert torch.equal(augmentations.augment(image, "none"), image)


@pytest.mark.parametrize("kind", ["shift", "flip", "scale", "erasing"])
def test_augmentation_setting_changes_training_and_not_evaluation(clips, kind):
    frames = clips[:1, :1].expand(16, -1, -1, -1, -1)
    torch.manual_seed(0)
    plain, augmented = debug(), debug(**{"frame.context.augmentation": kind})
    augmented.load_state_dict(plain.state_dict())
    for training in (False, True):
        tokens = [model.train(training).frame_model.encode_context(frames)[8] for model in (plain, augmented)]
        assert torch.equal(*tokens) == (not training)


def test_erasing_stays_within_its_share_of_the_area():
    torch.manual_seed(0)
    image = torch.ones(500, 3, 64, 64)
    erased = (augmentations.erasing(image)[:, 0] == 0).float().mean((1, 2))
    share = erased[erased > 0]
    assert 0.4 < len(share) / 500 < 0.6
    assert share.min() > 0.01
    assert share.max() < 0.36


def test_shift_moves_whole_pixels_at_most_an_eighth():
    torch.manual_seed(0)
    ramp = torch.arange(32.0).expand(40, 3, 32, 32).contiguous()
    moved = augmentations.shift(ramp) - ramp
    centre = moved[:, 0, 16, 16]
    torch.testing.assert_close(centre, centre.round())
    assert centre.abs().max() <= 4
    assert len(set(centre.round().tolist())) > 4


# Whole models.


def test_pixels_survive_centring():
    image = torch.arange(256, dtype=torch.uint8).expand(3, 1, 256)
    assert torch.equal(to_pixels(centred(image)), image)


def test_image_loss_is_half_the_squared_error_of_a_frame():
    video = torch.full((1, 2, 3, 4, 4), 255, dtype=torch.uint8)
    mean = torch.zeros(1, 2, 3, 4, 4)
    assert image_loss(mean, video) == pytest.approx(0.5 * 3 * 16 * 0.25)


@pytest.mark.parametrize("name", ["contextwm-debug", "plainwm-debug"])
def test_training_lowers_the_loss(name, clips, is_first):
    model = debug(name)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(40):
        loss, metrics = model(clips, is_first)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    assert set(metrics) == {"loss", "image_loss", "kl", "posterior_entropy", "prior_entropy"}


def test_seeded_training_is_reproducible(clips, is_first):
    def curve():
        model = debug()
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        losses = []
        for _ in range(5):
            loss, _ = model(clips, is_first)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses

    assert curve() == curve()


def test_every_parameter_takes_part_in_the_loss(clips, is_first):
    """DistributedDataParallel stops at a parameter without gradient."""
    for name in ("contextwm-debug", "plainwm-debug"):
        model = debug(name)
        model(clips, is_first)[0].backward()
        assert [n for n, p in model.named_parameters() if p.grad is None] == []


def test_predict_reads_only_the_frames_it_may_see(clips):
    model = debug().eval()
    hidden = clips.clone()
    hidden[:, 3:] = 0
    a, b = (
        model.predict(video, observed_frames=3, generator=torch.Generator().manual_seed(0))
        for video in (clips, hidden)
    )
    assert a.shape == clips.shape
    assert a.dtype == torch.uint8
    assert torch.equal(a, b)
    with pytest.raises(ValueError, match=r"observed_frames must lie in 1\.\.5"):
        model.predict(clips, observed_frames=6)


def test_wrong_input_says_what_was_expected(clips, is_first):
    with pytest.raises(
        ValueError, match=r"video must be uint8 \[B, T, 3, 32, 32\], got torch.uint8 \[2, 6, 3, 16, 16\]"
    ):
        debug().observe(clips[..., :16, :16], is_first)
    with pytest.raises(ValueError, match="image_size is a positive multiple of 16, got 40"):
        FrameModelConfig(image_size=40)


@pytest.mark.parametrize("kind", ["contrastive", "self-prediction"])
def test_objectives_without_pixels_leave_pixels_to_a_probe(kind, clips, is_first):
    """Encoder and dynamics get no gradient from the image loss, and the loss that shapes them goes down."""
    model = debug(**{"objective.kind": kind})
    optimizer = torch.optim.Adam((p for p in model.parameters() if p.requires_grad), lr=3e-3)
    name = kind.replace("-", "_") + "_loss"
    losses = []
    for update in range(40):
        model.set_update(update)
        loss, metrics = model(clips, is_first)
        optimizer.zero_grad()
        loss.backward()
        if update == 0:
            assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
        optimizer.step()
        losses.append(metrics[name].item())
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])
    model.config = model_config(
        "contextwm-debug", overrides={"objective.kind": kind, "objective.scale": 0.0, "kl_scale": 0.0}
    )
    optimizer.zero_grad()
    model(clips, is_first)[0].backward()
    assert all(p.grad.abs().sum() == 0 for p in model.frame_model.encoder.parameters())
    assert any(p.grad.abs().sum() > 0 for p in model.frame_model.decoder.parameters())


def test_contrastive_accuracy_of_a_perfect_predictor_is_one():
    objective = ContrastiveObjective(
        ObjectiveConfig(projection=8, steps_ahead=1, temperature=0.01), feature_size=8, embed_size=8
    )
    with torch.no_grad():
        for layer in (objective.project, objective.predict[0]):
            layer.weight.copy_(torch.eye(8))
            layer.bias.zero_()
    embed = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0))
    clips = torch.zeros(2, 5, 3, 4, 4, dtype=torch.uint8)
    none = torch.zeros(2, 5, 0, 1)
    feature = RSSMState(embed.roll(-1, dims=1), none, none)
    loss, metrics = objective(feature, feature, embed, clips)
    assert metrics["contrastive_accuracy"] == 1
    assert loss < 0.01
    with pytest.raises(ValueError, match="no frame 1 steps ahead"):
        first = feature.select((slice(None), slice(1)))
        objective(first, first, embed[:, :1], clips[:, :1])


def test_self_prediction_looks_at_the_prior_alone_and_not_at_the_first_frame(clips):
    """The posterior has seen the frame whose embedding is asked for."""
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 5))
    objective = SelfPredictionObjective(
        ObjectiveConfig(projection=8), feature_size=8, encoder=encoder, embed_size=5
    )
    none = torch.zeros(2, 6, 0, 1)
    prior, other = (RSSMState(torch.randn(2, 6, 8), none, none) for _ in range(2))
    changed = prior.deter.clone()
    changed[:, 0] += 1

    def loss(posterior, prior):
        return objective(posterior, prior, torch.zeros(2, 6, 5), clips)[0]

    assert torch.equal(loss(other, prior), loss(prior, prior))
    assert torch.equal(loss(prior, prior._replace(deter=changed)), loss(prior, prior))
    assert not torch.equal(loss(prior, other), loss(prior, prior))


def test_target_encoder_follows_by_its_decay():
    model = debug(**{"objective.kind": "self-prediction", "objective.target_decay": 0.75})
    online, target = model.frame_model.encoder.stem, model.objective.target.stem
    before = target.weight.clone()
    with torch.no_grad():
        online.weight += 4
    model.set_update(1)
    torch.testing.assert_close(target.weight, before + 1)


def test_k_context_frames_give_k_times_the_tokens(clips):
    model = debug(**{"frame.context.frames": 3})
    tokens = model.frame_model.context(clips)
    assert {stride: part.shape[1] for stride, part in tokens.items()} == {8: 3 * 16, 4: 3 * 64}
    assert model.predict(clips, observed_frames=2).shape == clips.shape


@pytest.mark.parametrize("ratio", [0.0, 0.75])
def test_tokens_are_dropped_anew_in_training_and_never_in_evaluation(clips, ratio):
    model = debug(
        **{"frame.context.token_dropout": ratio, "frame.context.dropout": 0.0, "frame.norm": "group"}
    )
    feature = torch.randn(2, 6, model.rssm.feature_size)
    images = []
    for training in (True, True, False, False):
        frame_model = model.train(training).frame_model
        images.append(frame_model.decode(feature, frame_model.encode_context(clips[:, :1])))
    first, second, evaluation, again = images
    assert torch.equal(evaluation, again)
    assert torch.equal(first, second) == (ratio == 0)
    assert torch.allclose(first, evaluation, atol=1e-6) == (ratio == 0)


def test_token_dropout_warms_up_in_stairs():
    model = debug(**{"frame.context.token_dropout_warmup_updates": 80})
    seen = []
    for update in (0, 9, 10, 40, 80, 500):
        model.set_update(update)
        seen.append(round(model.frame_model.token_dropout, 5))
    assert seen == [0.0, 0.0, 0.09375, 0.375, 0.75, 0.75]


def test_group_norm_does_not_look_at_other_clips(clips, is_first):
    model = debug(**{"frame.norm": "group"})
    together = model.frame_model.encode(clips)
    alone = model.frame_model.encode(clips[:1])
    torch.testing.assert_close(together[:1], alone)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())


def test_timm_pyramid_as_context_encoder(clips, is_first):
    model = debug(**{"frame.context.encoder": "timm:test_resnet"})
    loss, _ = model(clips, is_first)
    loss.backward()
    assert model.frame_model.context_encoder.body.conv1[0].weight.grad.abs().sum() > 0
    with pytest.raises(ValueError, match="timm has no model named 'nonsense'"):
        debug(**{"frame.context.encoder": "timm:nonsense"})
    with pytest.raises(ValueError, match="'resnet' or 'timm:<name>'"):
        debug(**{"frame.context.encoder": "vgg"})


def test_stacked_model_takes_over_the_pretrained_weights(clips, is_first):
    video = debug()
    config = ActionWorldModelConfig(
        action_size=2,
        frame=video.config.frame,
        video_rssm=video.config.rssm,
        rssm=RSSMConfig(stoch=3, classes=4, deter=8, hidden=8),
        heads=HeadConfig(1, 8),
        concat_embed=True,
    )
    with pytest.raises(ValueError, match="does not fit the new one"):
        ActionWorldModel.from_video_world_model(
            video, config=config
        )  # another feature size: the decoder differs
    matching = ActionWorldModelConfig(
        action_size=2,
        frame=video.config.frame,
        video_rssm=video.config.rssm,
        rssm=video.config.rssm,
        heads=HeadConfig(1, 8),
    )
    model = ActionWorldModel.from_video_world_model(video, config=matching)
    ours, theirs = model.frame_model.state_dict(), video.frame_model.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)

    output = model.observe(clips, torch.randn(2, 6, 2), is_first)
    loss, metrics = model.loss(output, clips, torch.randn(2, 6), torch.randn(2, 2))
    loss.backward()
    first, second = model.parameter_groups()
    assert {id(p) for p in (*first, *second)} == {id(p) for p in model.parameters()}
    assert len(first) + len(second) == len(list(model.parameters()))
    assert metrics["loss"] == pytest.approx(
        sum(metrics[n].item() for n in metrics if n.endswith("_loss")), rel=1e-5
    )


def test_the_action_rssm_reads_embed_then_video_feature(clips, is_first):
    """The official order, which matters to converted weights: of [embed, feature] the first columns are the embed's."""
    small = {"stoch": 2, "classes": 3, "deter": 6, "hidden": 6}
    model = debug("dreamerv2-tiny", **{"video_rssm": small, "concat_embed": True}).eval()
    seen, observe = [], model.rssm.observe
    model.rssm.observe = lambda embed, *rest, **options: (
        seen.append(embed) or observe(embed, *rest, **options)
    )
    model.observe(clips, torch.zeros(2, 6, 4), is_first, sample=False)
    embed = model.frame_model.encode(clips)
    torch.testing.assert_close(seen[0][..., : embed.shape[-1]], embed)
    assert seen[0].shape[-1] == embed.shape[-1] + model.video_rssm.feature_size


def test_acting_equals_filtering(clips, is_first):
    """One frame at a time with each RSSM's own state gives what `observe` gives for the whole sequence."""
    model = debug(
        "dreamerv2-tiny", **{"video_rssm": {"stoch": 2, "classes": 3, "deter": 6, "hidden": 6}}
    ).eval()
    action = torch.randn(2, 6, 4)
    whole = model.observe(clips, action, is_first, sample=False)
    state = model.initial(2)
    for t in range(6):
        state = model.obs_step(state, clips[:, t], action[:, t], is_first[:, t], sample=False)
    torch.testing.assert_close(model.feature(state), whole.feature[:, -1])
    torch.testing.assert_close(state.video.deter, whole.video_posterior.deter[:, -1])


def test_presets_are_listed_and_misspellings_corrected():
    assert {"contextwm", "contextwm-tiny", "contextwm-concat"} <= set(list_models("context*"))
    assert all(name.startswith("context") for name in list_models("context*"))
    with pytest.raises(ValueError, match="did you mean 'contextwm-tiny'"):
        create_model("contextwm-tyni")
    with pytest.raises(ValueError, match="did you mean 'deter'"):
        create_model("contextwm-tiny", overrides={"rssm.detr": 3})
    assert model_config("plainwm", overrides={"rssm.deter": 64}).rssm.deter == 64


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("rssm.stoch", 0, "rssm: stoch is at least 1, got 0"),
        ("rssm.classes", 0, "rssm: classes is at least 1, got 0"),
        ("rssm.deter", -3, "rssm: deter is at least 1, got -3"),
        ("rssm.hidden", 0, "rssm: hidden is at least 1, got 0"),
        ("rssm.action_size", 0, "rssm: action_size is at least 1, got 0"),
        ("frame.depth", 1, "frame: depth is at least 2, got 1"),
        ("frame.layers", 0, "frame: layers is at least 1, got 0"),
        ("frame.image_size", 0, "frame: image_size is a positive multiple of 16, got 0"),
        ("frame.image_size", 40, "frame: image_size is a positive multiple of 16, got 40"),
        ("frame.context.heads", 0, "frame.context: heads is at least 1, got 0"),
        ("frame.context.frames", 0, "frame.context: frames is at least 1, got 0"),
        ("frame.context.dropout", 1.0, "frame.context: dropout is at least 0 and below 1, got 1.0"),
        ("frame.context.dropout", -0.1, "frame.context: dropout is at least 0 and below 1, got -0.1"),
        ("frame.context.token_dropout", 1, "frame.context: token_dropout is at least 0 and below 1, got 1.0"),
        (
            "frame.context.token_dropout_warmup_updates",
            -1,
            "frame.context: token_dropout_warmup_updates is at least 0, got -1",
        ),
        ("objective.temperature", 0, "objective: temperature is above 0, got 0.0"),
        ("objective.target_decay", 1.5, "objective: target_decay is at least 0 and at most 1, got 1.5"),
        ("objective.steps_ahead", 0, "objective: steps_ahead is at least 1, got 0"),
        ("objective.projection", 0, "objective: projection is at least 1, got 0"),
        ("objective.scale", -1, "objective: scale is at least 0, got -1.0"),
        ("kl_balance", 1.5, "kl_balance is at least 0 and at most 1, got 1.5"),
        ("kl_scale", -1, "kl_scale is at least 0, got -1.0"),
        ("kl_scale", float("inf"), "kl_scale is at least 0 and finite, got inf"),
        ("free_nats", float("nan"), "free_nats is at least 0 and finite, got nan"),
    ],
)
def test_a_value_out_of_range_is_one_sentence(key, value, sentence):
    with pytest.raises(ConfigError) as error:
        create_model("contextwm-debug", overrides={key: value})
    assert str(error.value) == f"model contextwm-debug: {sentence}"


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("heads.layers", -1, "heads: layers is at least 0, got -1"),
        ("heads.units", 0, "heads: units is at least 1, got 0"),
        ("kl_balance", -0.5, "kl_balance is at least 0 and at most 1, got -0.5"),
        ("video_kl_scale", -1, "video_kl_scale is at least 0, got -1.0"),
        ("action_size", 0, "action_size is at least 1 and at most 50, got 0"),
        (
            "frame",
            {"image_size": 48, "backbone": "cnn"},
            "frame: backbone 'cnn' takes images of 64 or 32 pixels and no context",
        ),
    ],
)
def test_a_value_out_of_range_is_one_sentence_with_actions_too(key, value, sentence):
    with pytest.raises(ConfigError) as error:
        create_model("dreamerv2-tiny", overrides={key: value})
    assert str(error.value) == f"model dreamerv2-tiny: {sentence}"


def test_plain_convolutions_at_32_pixels_are_those_of_64_without_the_innermost_layer():
    """By hand: 32, 15, 6, 2 pixels a side in and 1, 5, 14, 32 out."""
    model = create_model("dreamerv2-cnn-tiny", overrides={"frame.depth": 4}).frame_model
    shapes = {name: tuple(weight.shape) for name, weight in model.named_parameters() if weight.dim() == 4}
    assert shapes == {
        "encoder.layers.0.weight": (4, 3, 4, 4),
        "encoder.layers.1.weight": (8, 4, 4, 4),
        "encoder.layers.2.weight": (16, 8, 4, 4),
        "decoder.layers.0.weight": (64, 8, 5, 5),
        "decoder.layers.1.weight": (8, 4, 6, 6),
        "decoder.layers.2.weight": (4, 3, 6, 6),
    }
    embed = model.encode(torch.zeros(2, 3, 3, 32, 32, dtype=torch.uint8))
    assert embed.shape == (2, 3, 64) == (2, 3, model.embed_size)
    feature = torch.zeros(2, 3, model.decoder.input.in_features)
    assert model.decode(feature, None).shape == (2, 3, 3, 32, 32)


def test_a_window_too_short_for_the_objective_is_one_sentence(clips, is_first):
    for kind, frames, sentence in (
        ("self-prediction", 1, "self-prediction needs clips of at least 2 frames, got 1"),
        ("contrastive", 3, "clips of 3 frames have no frame 3 steps ahead"),
    ):
        with pytest.raises(ValueError, match=sentence):
            debug(**{"objective.kind": kind})(clips[:, :frames], is_first[:, :frames])


@pytest.mark.parametrize("name", list_models())
def test_every_preset_can_be_built(name):
    assert sum(parameter.numel() for parameter in create_model(name).parameters()) > 0
