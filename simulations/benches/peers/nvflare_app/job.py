"""job.py simulator|poc MODEL ROUNDS WORK: federated averaging with NVIDIA FLARE and four clients."""
import os
import sys

import model
import numpy as np
from nvflare.app_common.np.recipes.fedavg import NumpyFedAvgRecipe
from nvflare.recipe.poc_env import PocEnv
from nvflare.recipe.sim_env import SimEnv

CLIENTS = 4
mode, kind, rounds, work = sys.argv[1:]
# Its NumPy recipe carries one array.
checkpoint = os.path.join(work, "initial.npy")
np.save(checkpoint, np.concatenate([weight.ravel() for weight in model.initial(kind)]))
script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "client.py")
recipe = NumpyFedAvgRecipe(
    name="bench", min_clients=CLIENTS, num_rounds=int(rounds), train_script=script, initial_ckpt=checkpoint
)
if mode == "poc":
    environment = PocEnv(num_clients=CLIENTS)
else:
    environment = SimEnv(num_clients=CLIENTS, num_threads=CLIENTS, workspace_root=os.path.join(work, "simulator"))
run = recipe.execute(environment)
print(run.get_status(), run.get_result())
