"""Federated averaging with Flower; writes the time at which each round has ended."""
import time

import model
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

client = ClientApp()
server = ServerApp()


@client.train()
def train(message: Message, context: Context):
    weights = message.content["arrays"].to_numpy_ndarrays()
    trained = model.train(weights, int(context.node_config["partition-id"]))
    content = {"arrays": ArrayRecord(trained), "metrics": MetricRecord({"num-examples": model.ROWS})}
    return Message(content=RecordDict(content), reply_to=message)


@server.main()
def main(grid: Grid, context: Context) -> None:
    config = context.run_config
    nodes = int(config["nodes"])

    def ended(_round, _arrays):
        with open(str(config["times"]), "a") as file:
            file.write(f"{time.time()}\n")

    while len(list(grid.get_node_ids())) < nodes:
        time.sleep(0.1)  # Before anything is timed.
    strategy = FedAvg(fraction_train=1.0, fraction_evaluate=0.0, min_train_nodes=nodes, min_available_nodes=nodes)
    arrays = ArrayRecord(model.initial(str(config["model"])))
    strategy.start(grid=grid, initial_arrays=arrays, num_rounds=int(config["num-rounds"]), evaluate_fn=ended)
