import jax
import jax.numpy as jnp
import learner_examples as examples
import numpy as np
import pytest

from agentflow_jax.core import config as config_lib
from agentflow_jax.learner import optimizer as optimizer_lib
from agentflow_jax.models import sharding


def _rates(total, steps, **fields):
  config = config_lib.LearnerConfig(lr=2.0, **fields)
  schedule = optimizer_lib.learning_rate(config, total)
  return [float(schedule(step)) for step in steps]


def test_constant_with_warm_up_never_wastes_the_first_step():
  rates = _rates(10, [0, 1, 2, 3, 9, 50], warmup_steps=4)
  np.testing.assert_allclose(rates, [0.5, 1.0, 1.5, 2.0, 2.0, 2.0])
  np.testing.assert_allclose(_rates(10, [0, 5]), [2.0, 2.0])


def test_linear_and_cosine_reach_zero_at_the_end():
  steps = [0, 2, 4, 6, 12]
  linear = _rates(6, steps, schedule="linear", warmup_steps=2)
  np.testing.assert_allclose(linear, [1.0, 2.0, 1.0, 0.0, 0.0], atol=1e-6)
  cosine = _rates(4, [0, 1, 2, 4, 9], schedule="cosine")
  half = 1 + np.sqrt(0.5)
  np.testing.assert_allclose(cosine, [2, half, 1, 0, 0], atol=1e-6)


def test_unknown_schedule():
  with pytest.raises(ValueError, match="exponential"):
    _rates(4, [0], schedule="exponential")


def _optimizer(**fields):
  defaults = {"lr": 0.1, "weight_decay": 0.0, "max_grad_norm": 1e9}
  config = config_lib.LearnerConfig(**(defaults | fields))
  return optimizer_lib.Optimizer(config, 10)


def _steps(optimizer, params, gradients):
  state = optimizer.init(params)
  for gradient in gradients:
    params, state = optimizer.update(gradient, state, params)
  return params, state


def test_adam_by_hand():
  # m = .1 g, v = .001 g^2, both bias-corrected to g and g^2 on step one; on
  # step two with g = 1 then 3: m = .39/.19, v = .009999/.001999.
  params = {"w": jnp.array([1.0])}
  one, _ = _steps(_optimizer(), params, [{"w": jnp.array([5.0])}])
  np.testing.assert_allclose(one["w"], [0.9], rtol=1e-6)
  gradients = [{"w": jnp.array([1.0])}, {"w": jnp.array([3.0])}]
  two, _ = _steps(_optimizer(), params, gradients)
  second = (0.39 / 0.19) / np.sqrt(0.009999 / 0.001999)
  np.testing.assert_allclose(two["w"], [0.9 - 0.1 * second], rtol=1e-5)


def test_weight_decay_is_decoupled_and_acts_on_everything():
  params = {"w": jnp.array([[2.0]]), "scale": jnp.array([4.0])}
  zero = jax.tree.map(jnp.zeros_like, params)
  moved, _ = _steps(_optimizer(weight_decay=0.5), params, [zero])
  np.testing.assert_allclose(moved["w"], [[1.9]], rtol=1e-6)
  np.testing.assert_allclose(moved["scale"], [3.8], rtol=1e-6)


def test_betas_and_eps_act():
  params, gradient = {"w": jnp.array([1.0])}, {"w": jnp.array([2.0])}
  moved, _ = _steps(_optimizer(eps=2.0), params, [gradient])
  np.testing.assert_allclose(moved["w"], [1 - 0.1 * 2 / (2 + 2)], rtol=1e-6)
  two = [{"w": jnp.array([1.0])}, {"w": jnp.array([3.0])}]
  moved, _ = _steps(_optimizer(b1=0.0, b2=0.0), params, two)
  np.testing.assert_allclose(moved["w"], [0.8], rtol=1e-6)


def test_gradients_are_clipped_to_a_global_norm():
  # Adam is blind to scale, so look at the first moment: (1 - b1) * clipped.
  optimizer = _optimizer(max_grad_norm=1.0)
  params = {"a": jnp.zeros(1), "b": jnp.zeros(1)}
  gradient = {"a": jnp.array([30.0]), "b": jnp.array([40.0])}
  _, state = _steps(optimizer, params, [gradient])
  moments = [
    leaf for leaf in jax.tree.leaves(state.inner) if leaf.shape == (1,)
  ]
  np.testing.assert_allclose(moments[0], [0.06], rtol=1e-5)
  np.testing.assert_allclose(moments[1], [0.08], rtol=1e-5)


def test_bfloat16_parameters_move_by_updates_below_their_resolution():
  # 1e-4 is far below bfloat16's step at 1.0 (0.0039): rounded after every
  # step, the parameter would stand still for ever.
  optimizer = _optimizer(lr=1e-4)
  params = {"w": jnp.ones(1, jnp.bfloat16), "x": jnp.ones(1)}
  gradient = {"w": jnp.ones(1), "x": jnp.ones(1)}
  moved, state = _steps(optimizer, params, [gradient] * 100)
  assert moved["w"].dtype == jnp.bfloat16
  np.testing.assert_allclose(state.masters["w"], [0.99], atol=1e-5)
  np.testing.assert_allclose(moved["w"].astype(float), [0.99], atol=2e-3)
  assert state.masters["x"] is None
  assert {leaf.dtype for leaf in jax.tree.leaves(state.inner)} == {
    jnp.dtype("float32"),
    jnp.dtype("int32"),
  }


def test_moments_live_where_their_parameter_lives():
  on_mesh = examples.mesh(2, 2, 2)
  shardings = sharding.param_shardings(examples.ARCH, on_mesh)
  replicated = jax.sharding.NamedSharding(on_mesh, jax.P())
  optimizer = _optimizer()
  got = optimizer.state_shardings(examples.PARAMS, shardings, replicated)
  state = jax.eval_shape(optimizer.init, examples.PARAMS)
  assert jax.tree.structure(got) == jax.tree.structure(state)
  by_shape = {}
  for leaf, where in zip(
    jax.tree.leaves(state), jax.tree.leaves(got), strict=True
  ):
    by_shape.setdefault(leaf.shape, []).append(where.spec)
  embedding = examples.PARAMS["embedding_VD"].shape
  assert by_shape[embedding] == [shardings["embedding_VD"].spec] * 2
  assert by_shape[()] == [jax.P()] * len(by_shape[()])
