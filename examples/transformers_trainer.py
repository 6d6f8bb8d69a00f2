"""The schedule in Hugging Face's Trainer: a tiny vision transformer, from its configuration."""

import tempfile

import torch
from digits import digits
from transformers import TrainingArguments, ViTConfig, ViTForImageClassification

import igo
from igo.adapters.transformers import GraduatedTrainer


def main(epochs: int = 10) -> float:
    torch.manual_seed(0)
    train, test = (
        [
            {"pixel_values": image, "labels": label}
            for image, label in zip(*data.tensors, strict=True)
        ]
        for data in digits()
    )
    model = ViTForImageClassification(
        ViTConfig(
            image_size=8,
            patch_size=2,
            num_channels=1,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            num_labels=10,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
    )
    plan = igo.plan("graduated", n=len(train), epochs=epochs, batch_size=16, p=0.5)
    print(plan)
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            learning_rate=0.003,
            save_strategy="no",
            report_to="none",
            use_cpu=True,
            disable_tqdm=True,
            seed=0,
            per_device_train_batch_size=32,  # larger batches come in parts
        )
        trainer = GraduatedTrainer(
            model,
            arguments,
            train_dataset=train,
            eval_dataset=test,
            plan=plan,
            compute_metrics=lambda output: {
                "accuracy": float((output.predictions.argmax(1) == output.label_ids).mean())
            },
        )
        trainer.train()
        metrics = trainer.evaluate()
    assert trainer.state.global_step == plan.updates
    print(f"{plan.updates} updates: test {metrics['eval_accuracy']:.2%}")
    return float(metrics["eval_accuracy"])


if __name__ == "__main__":
    main()
